"""A knapsack with one choice from every row, solved by dynamic programming."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2000
"""Into so many parts the budget is cut. Costs are rounded up to whole parts, so the result keeps the budget."""


@dataclass(frozen=True, slots=True)
class Row:
    """Options of which one is taken.

    Attributes:
        costs: Shape (options,).
        errors: What each is to be avoided for, shape (options,), finite.
    """

    costs: NDArray[np.float64]
    errors: NDArray[np.float64]


def choose(rows: Sequence[Row], budget: float, bins: int = BINS) -> tuple[int, ...] | None:
    """The option of every row with the least sum of errors whose sum of costs keeps the budget.

    The recursion over rows and spent parts of the budget is the one SPDY uses (Frantar & Alistarh 2022,
    arXiv:2201.13096, section 3.2). It is exact where costs above each row's least are multiples of a part; else the
    result is at least as good as the best one for a budget smaller by a part for each row.

    Args:
        rows: At least one option each.
        budget: Of the summed costs.
        bins: Parts of what the budget leaves above the cheapest options.

    Returns:
        Indices of options, one for each row; None when even the cheapest options cost more than the budget.
    """
    least = [row.costs.min() for row in rows]
    spare = budget - float(np.sum(least))
    slack = 1e-9 * max(abs(budget), 1.0)
    if spare < -slack:
        return None
    part = max(spare, 0.0) / bins
    best = np.zeros(bins + 1)  # by parts spent at most
    taken = np.zeros((len(rows), bins + 1), dtype=np.int64)
    sizes = [_parts(row.costs - low, part, bins) for row, low in zip(rows, least, strict=True)]
    for number, (row, size) in enumerate(zip(rows, sizes, strict=True)):
        following = np.full(bins + 1, np.inf)
        for option, (parts, error) in enumerate(zip(size, row.errors, strict=True)):
            if parts > bins:
                continue
            with_it = best[: bins + 1 - parts] + error
            better = with_it < following[parts:]
            following[parts:][better] = with_it[better]
            taken[number, parts:][better] = option
        best = following
    left, found = bins, []
    for number in reversed(range(len(rows))):
        option = int(taken[number, left])
        found.append(option)
        left -= int(sizes[number][option])
    return tuple(reversed(found))


def _parts(costs: NDArray[np.float64], part: float, bins: int) -> NDArray[np.int64]:
    """Costs in whole parts, rounded up; more than ``bins`` stands for too much."""
    if part == 0:
        return np.where(costs <= 0, 0, bins + 1)
    with np.errstate(over="ignore"):  # infinitely many parts of next to nothing are too much
        return np.minimum(np.ceil(costs / part - 1e-9), bins + 1).astype(np.int64)
