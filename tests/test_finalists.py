"""Which trials earn a long fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import pytest

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.evaluation import Evaluation, RungScore
from automl_prune.finalists import best_baseline, choose
from automl_prune.study.record import StudyContext, StudyRecord, TrialRecord
from automl_prune.tasks import Metric, Score

LIMIT = 100.0


def _record(*trials: tuple[str, float, float], higher: bool = True) -> StudyRecord:
    """A study of (origin, score, cost) trials."""
    records = []
    for number, (origin, value, cost) in enumerate(trials):
        evaluation = Evaluation(
            candidate=Candidate({"g": GroupChoice(number + 1, "l1")}),
            plan_digest=str(number),
            rungs=(RungScore(0, Score(value, 100), 0, 1.0),),
            costs={"macs": Cost("macs", cost, 200.0)},
            seed=0,
            worker="w",
        )
        trial = TrialRecord(number, "complete", origin, {}, evaluation, None, cost <= LIMIT, None, None, 1)
        records.append(trial)
    context = StudyContext(
        name="s",
        config={},
        metric=Metric("m", higher),
        cost="macs",
        limits={"macs": LIMIT},
        dense_costs={"macs": 200.0},
        dense_val=Score(1.0, 100),
        dense_test=Score(1.0, 100),
        group_widths={"g": 9},
        skipped=(),
        environment={},
    )
    return StudyRecord(context, tuple(records), (), len(records))


FRONT = [("search", 0.5, 50.0), ("search", 0.6, 60.0), ("search", 0.7, 70.0), ("search", 0.9, 90.0)]
BEATEN = ("uniform l1", 0.4, 80.0)
OVER = ("search", 0.99, 120.0)


def test_no_finalists_when_none_are_asked_for() -> None:
    assert choose(_record(*FRONT, BEATEN), 0) == ()


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (3, 4)), (2, (3, 0, 4)), (3, (3, 0, 2, 4)), (4, (3, 0, 1, 2, 4)), (9, (3, 0, 1, 2, 4))]
)
def test_the_best_then_a_spread_then_the_baseline(count: int, expected: tuple[int, ...]) -> None:
    chosen = choose(_record(*FRONT, BEATEN, OVER), count)
    assert chosen[0] == expected[0]
    assert set(chosen) == set(expected)


def test_a_baseline_on_the_front_comes_once() -> None:
    assert choose(_record(*FRONT, ("uniform l2", 0.95, 95.0)), 1) == (4,)


def test_nothing_feasible_chooses_nothing() -> None:
    assert choose(_record(OVER), 3) == ()


def test_lower_may_be_better() -> None:
    record = _record(("search", 0.2, 90.0), ("uniform l1", 0.5, 90.0), ("uniform l2", 0.3, 95.0), higher=False)
    assert best_baseline(record) == 2
    assert choose(record, 1) == (0, 2)


def test_the_best_baseline_is_of_the_highest_rung() -> None:
    record = _record(("uniform l1", 0.5, 90.0), ("uniform l2", 0.9, 95.0), ("uniform l3", 0.4, 95.0))
    trials = list(record.trials)
    for number in (0, 2):
        evaluation = trials[number].evaluation
        assert evaluation is not None
        rungs = (*evaluation.rungs, RungScore(1, evaluation.score, 5, 1.0))
        trials[number] = replace(trials[number], evaluation=replace(evaluation, rungs=rungs))
    assert best_baseline(replace(record, trials=tuple(trials))) == 0


def test_infeasible_baselines_do_not_count() -> None:
    record = _record(("search", 0.5, 50.0), ("uniform l1", 0.9, 150.0))
    assert best_baseline(record) is None
    assert best_baseline(replace(record, trials=())) is None
