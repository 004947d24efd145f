from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.front import FrontPoint, ParetoFront, hypervolume_history, reference_point

# Few distinct values, so that ties and duplicates are common.
coarse = st.integers(0, 6).map(lambda i: i / 4)
points_strategy = st.lists(st.tuples(coarse, coarse, st.booleans(), st.integers(0, 2)), max_size=24).map(
    lambda rows: [FrontPoint(trial, *row) for trial, row in enumerate(rows)]
)


def point(trial: int, score: float, cost: float, *, feasible: bool = True, rung: int = 0) -> FrontPoint:
    return FrontPoint(trial, score, cost, feasible, rung)


def dominates(a: FrontPoint, b: FrontPoint, sign: int) -> bool:
    at_least = sign * a.score >= sign * b.score and a.cost <= b.cost
    return at_least and (a.score != b.score or a.cost != b.cost)


def front_by_definition(points: list[FrontPoint], sign: int) -> set[int]:
    feasible = [p for p in points if p.feasible]
    rung = max((p.rung for p in feasible), default=0)
    level = [p for p in feasible if p.rung == rung]
    first = [p for p in level if not any((q.score, q.cost) == (p.score, p.cost) and q.trial < p.trial for q in level)]
    return {p.trial for p in first if not any(dominates(q, p, sign) for q in level)}


@given(points_strategy, st.booleans(), st.randoms())
def test_selection_equals_the_definition_in_any_order(points, higher, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(points)
    random.shuffle(shuffled)
    front = ParetoFront.of(shuffled, higher_is_better=higher)
    assert set(front.trials) == front_by_definition(points, 1 if higher else -1)
    assert [p.cost for p in front.points] == sorted(p.cost for p in front.points)
    assert ParetoFront.of(front.points, higher_is_better=higher) == front


@given(points_strategy, st.booleans())
def test_constructor_accepts_exactly_the_fronts(points: list[FrontPoint], higher: bool) -> None:
    sign = 1 if higher else -1
    valid = (
        all(p.feasible for p in points)
        and len({p.rung for p in points}) <= 1
        and not any(
            dominates(p, q, sign) or (p.score, p.cost) == (q.score, q.cost)
            for p, q in itertools.permutations(points, 2)
        )
    )
    if valid:
        assert set(ParetoFront(tuple(points), higher).points) == set(points)
    else:
        with pytest.raises(ValueError, match=r"trial|rung"):
            ParetoFront(tuple(points), higher)


@given(points_strategy, st.booleans(), coarse)
def test_best_is_the_best_score_among_affordable_points(points: list[FrontPoint], higher: bool, limit: float) -> None:
    front = ParetoFront.of(points, higher_is_better=higher)
    affordable = [p.score for p in front.points if p.cost <= limit]
    best = front.best(limit)
    if not affordable:
        assert best is None
    else:
        assert best is not None
        assert best.score == (max(affordable) if higher else min(affordable))


@given(points_strategy, st.booleans(), st.tuples(coarse, coarse))
def test_hypervolume_equals_the_area_counted_cell_by_cell(
    points: list[FrontPoint], higher: bool, reference: tuple[float, float]
) -> None:
    """All coordinates are multiples of 1/4, so that centres of cells of that size decide exactly."""
    front = ParetoFront.of(points, higher_is_better=higher)
    sign = 1 if higher else -1
    centres = (np.arange(0, 6) + 0.5) / 4
    count = sum(
        cost < reference[1]
        and sign * score > sign * reference[0]
        and any(p.cost <= cost and sign * p.score >= sign * score for p in front.points)
        for score in centres
        for cost in centres
    )
    assert front.hypervolume(reference) == pytest.approx(count / 16, abs=1e-12)


def test_hypervolume_equals_monte_carlo_and_closed_form() -> None:
    costs = np.linspace(0.05, 0.95, 19)
    front = ParetoFront(tuple(point(i, math.sqrt(c), float(c)) for i, c in enumerate(costs)), True)
    draws = np.random.default_rng(0).random((40_000, 2))
    hit = np.zeros(len(draws), dtype=bool)
    for p in front.points:
        hit |= (draws[:, 0] <= p.score) & (draws[:, 1] >= p.cost)
    area = front.hypervolume((0.0, 1.0))
    assert area == pytest.approx(hit.mean(), abs=4 * hit.std() / math.sqrt(len(draws)))
    assert ParetoFront((point(0, 0.5, 0.25),), True).hypervolume((0.0, 1.0)) == pytest.approx(0.375)


@given(points_strategy, st.booleans())
def test_history_is_the_hypervolume_of_every_prefix(points: list[FrontPoint], higher: bool) -> None:
    level = [p for p in points if p.rung == 1]
    reference = (0.0 if higher else 1.5, 1.5)
    history = hypervolume_history(level, reference, higher_is_better=higher)
    prefixes = [
        ParetoFront.of(level[: i + 1], higher_is_better=higher).hypervolume(reference) for i in range(len(level))
    ]
    assert history == pytest.approx(prefixes)
    assert history == sorted(history)


def test_history_refuses_mixed_rungs() -> None:
    with pytest.raises(ValueError, match="rungs"):
        hypervolume_history([point(0, 1, 1), point(1, 1, 1, rung=1)], (0, 2), higher_is_better=True)


def test_knee_is_where_the_front_bends() -> None:
    bent = [point(0, 0.0, 0.0), point(1, 0.8, 0.1), point(2, 0.9, 0.6), point(3, 1.0, 1.0)]
    assert ParetoFront(tuple(bent), True).knee() == bent[1]
    scaled = tuple(point(p.trial, -5 - 1e-3 * p.score, 1e9 * p.cost) for p in bent)
    knee = ParetoFront(scaled, False).knee()
    assert knee is not None
    assert knee.trial == 1, "scaling the axes or turning the metric round must not move the knee"


def test_no_knee_without_a_bend() -> None:
    assert ParetoFront((point(0, 0, 0), point(1, 1, 1)), True).knee() is None
    hollow = (point(0, 0.0, 0.0), point(1, 0.1, 0.8), point(2, 1.0, 1.0))
    assert ParetoFront(hollow, True).knee() is None


def test_other_rungs_can_be_asked_for() -> None:
    points = [point(0, 0.9, 1), point(1, 0.8, 1, rung=2), point(2, 0.7, 0.5, feasible=False, rung=3)]
    assert ParetoFront.of(points, higher_is_better=True).trials == (1,)
    assert ParetoFront.of(points, higher_is_better=True, rung=0).trials == (0,)


def test_nothing_feasible_gives_an_empty_front() -> None:
    front = ParetoFront.of([point(0, 1, 1, feasible=False)], higher_is_better=True)
    assert (front.points, front.rung, front.knee(), front.best()) == ((), None, None, None)
    assert front.hypervolume((0, 2)) == 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_points_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        point(0, value, 1)
    with pytest.raises(ValueError, match="finite"):
        point(0, 1, value)


@pytest.mark.parametrize(
    ("score", "higher_is_better", "expected"),
    [(0.9, True, 0.45), (-2.0, True, -3.0), (0.2, False, 0.4), (-1.0, False, 0.0)],
)
def test_the_reference_point_is_worse_than_the_dense_model(
    score: float, higher_is_better: bool, expected: float
) -> None:
    found, cost = reference_point(score, 7.0, higher_is_better=higher_is_better)
    assert cost == 7.0
    assert found == pytest.approx(expected)
    assert (found < score) is higher_is_better
