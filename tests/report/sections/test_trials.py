from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from automl_prune.report.data import collect
from automl_prune.report.sections.trials import MOST_LISTED, listed, render
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_of_very_many_trials_those_that_matter_are_listed(make_record: MakeRecord) -> None:
    record = make_record(trials=MOST_LISTED + 200)
    data = collect(record, Path("runs/x"))
    rows = listed(data)
    numbers = [row.trial.number for row in rows]
    assert len(rows) == MOST_LISTED
    assert numbers == sorted(numbers)
    wanted = {t.number for t in record.trials if t.state == "failed" or t.origin != "search"}
    wanted |= {f.trial for f in record.finalists} | set(data.search_front.trials)
    assert wanted <= set(numbers)
    shown = [row.trial.evaluation.score.value for row in rows if row.trial.evaluation]
    left = [t.evaluation.score.value for t in record.trials if t.number not in numbers and t.evaluation]
    assert max(left) <= sorted(shown)[len(wanted)]
    assert f"Of {MOST_LISTED + 200} trials {MOST_LISTED} are listed" in render(data)
