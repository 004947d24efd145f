from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.report.data import Missing, ReportData, collect
from automl_prune.report.sections.costs import stages
from automl_prune.report.sections.history import History, growth
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def history_of(data: ReportData) -> History | Missing:
    return growth(data.record)


def test_every_trial_has_a_status(make_record: MakeRecord) -> None:
    data = collect(make_record(), Path("runs/x"))
    status = {row.trial.number: (row.status, row.category) for row in data.trials}
    assert len(status) == 40
    assert status[12] == ("over budget", "over budget")
    assert status[17] == ("failed", None)
    assert {n for n, (_, category) in status.items() if category == "front"} == set(data.search_front.trials)


@pytest.mark.parametrize("kind", ["over_budget", "fail_all"])
def test_missing_parts_say_why(make_record: MakeRecord, kind: str) -> None:
    data = collect(make_record(finalists=0, **{kind: True}), Path("runs/x"))
    for part in (data.front, data.finalists, history_of(data)):
        assert isinstance(part, Missing)
        assert part.reason.endswith(".")


def test_unfinished_search_says_so(make_record: MakeRecord) -> None:
    record = make_record()
    running = replace(record.trials[-1], state="running", evaluation=None, feasible=None, finished=None)
    data = collect(replace(record, trials=(*record.trials[:-1], running)), Path("runs/x"))
    assert "1 running" in data.progress
    assert data.progress.endswith("can be resumed.")
    assert not collect(record, Path("runs/x")).progress.endswith("resumed.")


def test_rungs_are_not_mixed(make_record: MakeRecord) -> None:
    record = make_record()
    trials = list(record.trials)
    for number in (6, 7):
        evaluation = trials[number].evaluation
        assert evaluation is not None
        trials[number] = replace(trials[number], evaluation=replace(evaluation, rungs=evaluation.rungs[:1]))
    data = collect(replace(record, trials=tuple(trials), finalists=()), Path("runs/x"))
    assert [row.category for row in data.trials if row.trial.number in (6, 7)] == ["lower rung"] * 2
    history = history_of(data)
    assert isinstance(history, History)
    assert {6, 7} <= set(history.trials), "the history is of rung 0, which all have"
    assert {stage.name for stage in stages(data.record)} >= {"Trials, no training", "Trials, short fine-tuning"}
