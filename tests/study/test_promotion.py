"""Who climbs to rung 1: the front always, what is within noise of it as long as the allowance lasts, nobody else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.costs import Cost
from automl_prune.errors import ConfigError
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.study.promotion import Promotion
from automl_prune.tasks.base import Score
from tests.study import synthetic

CONTEXT = synthetic.context()
LIMIT = CONTEXT.limits["macs"]
ERROR = 0.01


def costs(macs: float) -> dict[str, Cost]:
    return {"macs": Cost("macs", macs, CONTEXT.dense_costs["macs"])}


def evaluated(score: float, macs: float, *, steps: int = 0, error: float | None = ERROR) -> Evaluation:
    rungs = [RungScore(0, Score(score, 100, error), 0, 1.0)]
    if steps:
        rungs.append(RungScore(1, Score(0.99, 100, error), steps, 1.0))
    return Evaluation(Candidate({"g": GroupChoice(1, "l1")}), "", tuple(rungs), costs(macs), 0, "w")


def climbs(score: float, macs: float, before: list[Evaluation], *, share: float = 0.0) -> bool:
    return Promotion(10, share).climbs(Score(score, 100, ERROR), costs(macs), before, CONTEXT)


def test_the_first_and_whatever_nothing_as_cheap_beats_climb_without_an_allowance() -> None:
    assert climbs(0.1, 1000, [])
    before = [evaluated(0.5, 900, steps=10), evaluated(0.9, 1500, steps=10)]
    assert climbs(0.51, 1000, before), "the better one costs more"
    assert climbs(0.1, 800, before)
    assert not climbs(0.5, 900, before), "an equal is nothing new"


def test_a_rung_one_score_is_no_rival() -> None:
    assert climbs(0.6, 1000, [evaluated(0.5, 900, steps=10)]), "0.99 was reached by training"


def test_what_misses_a_budget_neither_climbs_nor_hinders() -> None:
    assert not climbs(0.9, LIMIT + 1, [])
    lately = [evaluated(0.9, LIMIT * 2)]
    assert climbs(0.1, LIMIT, lately)


@pytest.mark.parametrize(("behind", "expected"), [(0.9, True), (1.1, False)])
def test_noise_is_a_standard_error_of_the_difference(behind: float, expected: bool) -> None:
    before = [evaluated(0.5, 900)]
    assert climbs(0.5 - behind * ERROR * 2**0.5, 1000, before, share=1.0) is expected


def test_on_the_same_samples_noise_is_what_two_models_differ_in() -> None:
    best, close = torch.arange(400) < 300, torch.arange(400) < 294
    mixed = (torch.arange(400) >= 47) & (torch.arange(400) < 341)  # as many right, others
    rival = replace(evaluated(0.0, 900), rungs=(RungScore(0, Score.of_hits(best), 0, 1.0),))
    rule = Promotion(10, 1.0)
    assert not rule.climbs(Score.of_hits(close), costs(1000), [rival], CONTEXT), "behind on six, ahead on none"
    assert rule.climbs(Score.of_hits(mixed), costs(1000), [rival], CONTEXT)


def test_without_standard_errors_only_a_tie_is_noise() -> None:
    before = [evaluated(0.5, 900, error=None)]
    assert climbs(0.5, 1000, before, share=1.0)
    assert not climbs(0.4999, 1000, before, share=1.0)


def test_the_allowance_is_a_share_of_all_trials_steps() -> None:
    before = [evaluated(0.5, 900, steps=10), evaluated(0.4, 950), evaluated(0.4, 950)]
    assert climbs(0.5, 1000, before, share=0.5), "20 of 40 steps"
    assert not climbs(0.5, 1000, before, share=0.49)


def test_lower_may_be_better() -> None:
    context = synthetic.context(higher_is_better=False)
    rule, before = Promotion(10, 0.0), [evaluated(0.5, 900)]
    assert rule.climbs(Score(0.4, 100), costs(1000), before, context)
    assert not rule.climbs(Score(0.6, 100), costs(1000), before, context)


@pytest.mark.parametrize(("steps", "share"), [(0, 0.3), (10, -0.1), (10, 1.1)])
def test_rules_are_checked(steps: int, share: float) -> None:
    with pytest.raises(ConfigError, match="rung 1"):
        Promotion(steps, share)


Points = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 3000)), max_size=30)


@given(Points, st.floats(0, 1), st.booleans())
def test_in_any_study_the_front_has_climbed_and_the_rest_kept_to_the_allowance(
    points: list[tuple[int, int]], share: float, higher: bool
) -> None:
    context, rule = synthetic.context(higher_is_better=higher), Promotion(10, share)
    before: list[Evaluation] = []
    for score, macs in points:
        found = evaluated(score / 20, macs)
        if rule.climbs(found.rungs[0].score, found.costs, before, context):
            found = evaluated(score / 20, macs, steps=10)
            front = _front(before, higher)
            new = FrontPoint(len(before), score / 20, macs, macs <= LIMIT, 0)
            on_front = not front.dominates(new)
            assert on_front or sum(e.steps for e in before) + 10 <= share * 10 * (len(before) + 1)
        before.append(found)
    climbed = [evaluation.rung == 1 for evaluation in before]
    assert all(climbed[number] for number in _front(before, higher).trials)
    assert not any(up for up, (_, macs) in zip(climbed, points, strict=True) if macs > LIMIT)


def _front(evaluations: list[Evaluation], higher: bool) -> ParetoFront:
    points = [
        FrontPoint(number, e.rungs[0].score.value, e.costs["macs"].value, e.costs["macs"].value <= LIMIT, 0)
        for number, e in enumerate(evaluations)
    ]
    return ParetoFront.of(points, higher_is_better=higher)


def test_an_evaluation_has_every_rung_below_its_highest() -> None:
    whole = evaluated(0.5, 900, steps=10)
    assert (whole.rung, whole.score.value, whole.steps, whole.seconds) == (1, 0.99, 10, 2.0)
    assert Evaluation.from_json(whole.to_json()) == whole
    for rungs in ((), whole.rungs[1:], whole.rungs[::-1]):
        with pytest.raises(ValueError, match="without a gap"):
            replace(whole, rungs=rungs)
