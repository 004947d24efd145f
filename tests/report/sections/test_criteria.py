from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.report.data import Missing, collect
from automl_prune.report.sections.criteria import Usage, usage, usage_figure
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_shares_are_counted_over_groups(make_record: MakeRecord) -> None:
    record = make_record(finalists=0)
    data = collect(record, Path("runs/x"))
    found = usage(data)
    assert isinstance(found, Usage)
    own = [t.evaluation.candidate for t in record.trials if t.origin == "search" and t.evaluation]
    choices = [choice.criterion for candidate in own for choice in candidate.choices.values()]
    for name, share in zip(found.criteria, found.tried, strict=True):
        assert share == pytest.approx(choices.count(name) / len(choices))
    assert sum(found.tried) == pytest.approx(1)
    assert sum(found.front) == pytest.approx(1)
    assert (found.trials, found.models) == (len(own), len(data.search_front.points))
    tried, front = usage_figure(found).data
    assert list(tried.x) == [100 * share for share in found.tried]
    assert list(front.y) == list(found.criteria)


def test_one_criterion_is_no_figure(make_record: MakeRecord) -> None:
    record = make_record(finalists=0)
    same = Candidate({"conv1": GroupChoice(3, "l1")})
    trials = tuple(
        replace(t, evaluation=replace(t.evaluation, candidate=same)) if t.evaluation else t for t in record.trials
    )
    found = usage(collect(replace(record, trials=trials), Path("runs/x")))
    assert isinstance(found, Missing)
    assert "one criterion, l1" in found.reason
