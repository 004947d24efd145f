"""Widening under costs that do not grow with every width: never over a limit, and nothing wider left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from automl_prune.projection.allocation import greedy_widths, knapsack_widths
from automl_prune.projection.allowed import AllowedWidths
from automl_prune.projection.widening import Widening


@dataclass(frozen=True)
class Staircase:
    """Latency of a chain of layers: products of widths in blocks of ``block``, slower by ``penalty`` off the blocks."""

    groups: tuple[str, ...]
    block: int = 8
    penalty: float = 0.5
    monotone: bool = False

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        return float(self.evaluate_all(np.asarray(widths)[None])[0])

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
        blocks = -(-widths // self.block)
        slow = np.where(widths % self.block, 1 + self.penalty, 1.0)
        through = (blocks * slow).astype(float)
        return np.asarray(1 + through[:, 0] + (through[:, :-1] * through[:, 1:]).sum(axis=1) + through[:, -1])

    def at(self, widths: Mapping[str, int]) -> float:
        return self.evaluate([widths[group] for group in self.groups])


@dataclass(frozen=True)
class Sum(Staircase):
    """A cost that is monotone: the sum of the widths."""

    monotone: bool = True

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(widths.sum(axis=1))


@st.composite
def problems(draw: st.DrawFn) -> tuple[AllowedWidths, Widening, NDArray[np.int64], dict[str, float]]:
    widths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    step = draw(st.integers(1, 9))
    allowed = AllowedWidths(tuple((*range(min(step, width), width, step), width) for width in widths))
    groups = tuple(f"g{i}" for i in range(len(widths)))
    costs = {"latency": Staircase(groups, draw(st.integers(2, 16)), draw(st.floats(0, 2))), "params": Sum(groups)}
    metrics = draw(st.sampled_from([["latency"], ["latency", "params"], ["params", "latency"]]))
    limits = {}
    for metric in metrics:
        low, high = (float(costs[metric].evaluate(end)) for end in (allowed.lowest, allowed.highest))
        limits[metric] = low + draw(st.floats(-0.1, 1.1)) * (high - low)
    weights = np.array([draw(st.floats(0.2, 3)) for _ in widths])
    return allowed, Widening(allowed, costs, limits), allowed.raises(weights), limits


Problem = tuple[AllowedWidths, Widening, NDArray[np.int64], dict[str, float]]


@given(problems(), st.floats(0.3, 1))
def test_never_over_a_limit_and_no_group_can_take_any_wider_width(problem: Problem, share: float) -> None:
    allowed, widening, raises, limits = problem
    bound = share * next(iter(limits.values()))
    found = widening.along(raises, bound)
    if found is None:
        assert not widening.fits(allowed.lowest, bound)
        return
    assert widening.fits(found, bound)
    for group, own in enumerate(allowed.by_group):
        for wider in (width for width in own if width > found[group]):
            changed = found.copy()
            changed[group] = wider
            assert not widening.fits(changed, bound)


@given(problems())
def test_the_way_is_followed_as_far_as_any_of_its_widths_fit(problem: Problem) -> None:
    allowed, widening, raises, limits = problem
    bound = next(iter(limits.values()))
    way = [allowed.widths(np.bincount(raises[:n], minlength=len(allowed.by_group))) for n in range(len(raises) + 1)]
    fitting = [widths for widths in way if widening.fits(widths, bound)]
    found = widening.along(raises, bound)
    assert (found is None) == (not fitting)
    if found is not None:
        assert (found >= fitting[-1]).all()


@given(problems())
def test_the_cheapest_are_within_every_limit(problem: Problem) -> None:
    _, widening, raises, limits = problem
    found = widening.cheapest()
    if found is None:
        assert any(least > limits[metric] for metric, least in widening.least().items()) or len(limits) > 1
        return
    assert widening.fits(found, next(iter(limits.values())))
    filled = widening.beyond(found, raises, next(iter(limits.values())))
    assert (filled >= found).all()
    assert widening.fits(filled, next(iter(limits.values())))


def test_a_step_that_costs_more_is_leapt_over_by_hand() -> None:
    allowed = AllowedWidths((tuple(range(1, 33)),))
    widening = Widening(allowed, {"latency": Staircase(("a",), 16, 0.5)}, {"latency": 5.0})
    # 1 + 2 * blocks: 3 at 16 and 5 at 32; 17 to 31 take 7, 1 to 15 take 4
    assert widening.along(allowed.raises(np.ones(1)), 2.9) is None
    aligned = widening.along(allowed.raises(np.ones(1)), 3.5)
    assert aligned is not None
    assert aligned.tolist() == [16]
    found = widening.along(allowed.raises(np.ones(1)), 5.0)
    assert found is not None
    assert found.tolist() == [32]
    cheapest = Widening(allowed, {"latency": Staircase(("a",), 16, 0.5)}, {"latency": 3.0}).cheapest()
    assert cheapest is not None
    assert cheapest.tolist() == [16]


def test_the_greatest_cost_may_be_that_of_narrower_widths() -> None:
    allowed = AllowedWidths((tuple(range(1, 33)),))
    costs = {"latency": Staircase(("a",), 16, 0.5), "params": Sum(("a",))}
    assert costs["latency"].evaluate([32]) == 5
    assert Widening(allowed, costs, {"latency": 100.0}).greatest() == 7
    assert Widening(allowed, costs, {"params": 100.0}).greatest() == 32


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_greedy_and_knapsack_meet_a_staircase(share: float) -> None:
    cost = Staircase(("a", "b", "c"), 16, 0.6)
    allowed = AllowedWidths(tuple(tuple(range(1, width + 1)) for width in (48, 64, 48)))
    errors = [np.linspace(1, 0, len(own) + 1) ** 2 for own in allowed.by_group]
    target = share * float(cost.evaluate(allowed.highest))
    widening = Widening(allowed, {"latency": cost}, {"latency": target})
    greedy = greedy_widths(cost, allowed.by_group, errors, target)
    assert cost.evaluate(greedy) <= target
    assert cost.evaluate(allowed.highest) > target

    def repair(widths: NDArray[np.int64]) -> NDArray[np.int64]:
        return widths if widening.fits(widths, target) else start

    start = widening.beyond(greedy, allowed.raises(np.ones(3)), target)
    found = knapsack_widths(cost, allowed.by_group, errors, target, start, repair)
    lost = [sum(curve[w] for curve, w in zip(errors, widths, strict=True)) for widths in (found, start)]
    assert cost.evaluate(found) <= target
    assert lost[0] <= lost[1]
    best = min(
        (sum(curve[w] for curve, w in zip(errors, widths, strict=True)), widths)
        for a in (16, 32, 48) for b in (16, 32, 48, 64) for c in (16, 32, 48)
        if cost.evaluate(widths := (a, b, c)) <= target
    )  # fmt: skip
    assert lost[0] <= 1.25 * best[0], "near the best of the aligned widths"
