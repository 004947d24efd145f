from __future__ import annotations

from collections.abc import Callable

from automl_prune.report.sections.costs import stages, wall_seconds
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_stages_add_up(make_record: MakeRecord) -> None:
    record = make_record()
    by_name = {stage.name: stage for stage in stages(record)}
    done = [trial.evaluation for trial in record.trials if trial.evaluation]
    assert by_name["Trials, no training"].seconds == len(done)
    assert by_name["Trials, short fine-tuning"].seconds == sum(e.seconds for e in done) - len(done)
    assert by_name["Trials, short fine-tuning"].steps == 100 * len(done)
    assert by_name["Failed trials"].seconds == 12
    runs = [run for finalist in record.finalists for run in finalist.runs]
    assert by_name["Finalists, long fine-tuning"].steps == sum(run.steps for run in runs)
    assert wall_seconds(record) == 39 * 14 + 12.5
