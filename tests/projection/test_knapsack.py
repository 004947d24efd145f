"""The knapsack against every combination."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.projection.knapsack import Row, choose


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    found = []
    for _ in range(draw(st.integers(1, 4))):
        options = draw(st.integers(1, 4))
        costs = draw(st.lists(st.integers(0, 20), min_size=options, max_size=options))
        errors = draw(st.lists(st.floats(0, 1), min_size=options, max_size=options))
        found.append(Row(np.array(costs, dtype=float), np.array(errors)))
    return found


def by_hand(rows: list[Row], budget: float) -> float | None:
    sums = [
        sum(row.errors[pick] for row, pick in zip(rows, picks, strict=True))
        for picks in product(*(range(len(row.costs)) for row in rows))
        if sum(row.costs[pick] for row, pick in zip(rows, picks, strict=True)) <= budget
    ]
    return min(sums, default=None)


@given(rows(), st.integers(0, 60))
def test_whole_costs_give_the_best_of_all_combinations(problem: list[Row], budget: int) -> None:
    spare = budget - sum(int(row.costs.min()) for row in problem)
    picks = choose(problem, budget, bins=max(1, spare))
    best = by_hand(problem, budget)
    if best is None:
        assert picks is None
        return
    assert picks is not None
    assert sum(row.costs[pick] for row, pick in zip(problem, picks, strict=True)) <= budget
    assert np.isclose(sum(row.errors[pick] for row, pick in zip(problem, picks, strict=True)), best)


@given(rows(), st.floats(0, 60), st.integers(1, 50))
def test_coarse_parts_keep_the_budget_and_lose_at_most_a_part_for_each_row(
    problem: list[Row], budget: float, bins: int
) -> None:
    picks = choose(problem, budget, bins)
    least = sum(float(row.costs.min()) for row in problem)
    if picks is None:
        assert least > budget
        return
    assert sum(row.costs[pick] for row, pick in zip(problem, picks, strict=True)) <= budget + 1e-6
    smaller = by_hand(problem, budget - len(problem) * (budget - least) / bins)
    found = sum(row.errors[pick] for row, pick in zip(problem, picks, strict=True))
    assert smaller is None or found <= smaller + 1e-9


def test_next_to_no_budget_affords_only_what_is_free() -> None:
    rows = [Row(np.array([0.0, 1.0]), np.array([1.0, 0.0]))]
    assert choose(rows, 2.2250738585072014e-308, bins=4) == (0,)
