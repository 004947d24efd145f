"""Widths that lose least by summed errors of groups, for costs that are no sum over groups: knapsack and greedy.

Multiply-accumulates and latency depend on products of widths, so no knapsack fits them as it is. Around
given widths they nearly are: with all others fixed, what one group costs at each of its widths is exact. So the
knapsack is solved around the present widths, within a factor that keeps the sum of such costs close to the true
cost, and again around its solution. Whoever calls repairs what is left to exact feasibility (``Projector``). On a
latency table that is HALP's knapsack (Shen et al. 2022, arXiv:2110.10811, section 3.3), with all widths of a group as
options of one row instead of neurons one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from automl_prune.costs import CostModel
from automl_prune.projection.knapsack import Row, choose

Widths = NDArray[np.int64]

ROUNDS = 6
"""At most so many knapsacks after each other."""

REACH = 1.5
"""Each looks at widths up to this factor narrower or wider than those it starts from."""

OPTIONS = 48
"""At most so many widths of a group in one knapsack, evenly spaced."""


def knapsack_widths(
    cost: CostModel,
    allowed: Sequence[Sequence[int]],
    errors: Sequence[NDArray[np.float64]],
    target: float,
    start: Widths,
    repair: Callable[[Widths], Widths],
) -> Widths:
    """Widths of least summed error among those found from ``start``, which is one of them.

    Args:
        cost: To be kept at most ``target``.
        allowed: By group, ascending.
        errors: By group, at every width from 0 to the dense one.
        target: Greatest cost.
        start: Feasible widths, shape (groups,).
        repair: From widths that may cost a little more or less than the target to feasible ones near them.

    Returns:
        Feasible widths, shape (groups,).
    """
    best, present = start, start
    for _ in range(ROUNDS):
        near = [_near(widths, int(width)) for widths, width in zip(allowed, present, strict=True)]
        rows = [
            Row(_costs(cost, present, number, options), errors[number][options]) for number, options in enumerate(near)
        ]
        picked = choose(rows, target - cost.evaluate(present))
        if picked is None:
            break
        found = repair(np.array([options[pick] for options, pick in zip(near, picked, strict=True)], dtype=np.int64))
        if np.array_equal(found, present):
            break
        present = found
        if total(errors, present) < total(errors, best):
            best = present
    return best


def greedy_widths(
    cost: CostModel, allowed: Sequence[Sequence[int]], errors: Sequence[NDArray[np.float64]], target: float
) -> Widths:
    """From dense widths, always the step that adds least error for the cost it saves, until the target is met.

    Savings are exact at the widths of the moment (as in Yang et al. 2018, arXiv:1804.03230, section 3, with one
    number for all groups instead of a loop of fine-tunings).

    Returns:
        Widths, shape (groups,): feasible, or the narrowest there are.
    """
    options = [_thinned(widths) for widths in allowed]
    places = np.array([len(allowed) - 1 for allowed in options])
    present = np.array([allowed[-1] for allowed in options], dtype=np.int64)
    spent = cost.evaluate(present)
    while spent > target and places.any():
        # where a cost is not monotone a single step may save nothing, so all narrower widths are tried
        steps = [
            (number, place)
            for number, top in enumerate(places.tolist())
            for place in range(top - 1 if cost.monotone and top else 0, top)
        ]
        group, place = np.array(steps).T
        narrower = np.array([options[n][r] for n, r in steps])
        trials = np.repeat(present[None], len(steps), axis=0)
        trials[np.arange(len(steps)), group] = narrower
        saved = np.maximum(spent - cost.evaluate_all(trials), 1e-9 * spent)
        added = np.array([errors[n][w] - errors[n][present[n]] for n, w in zip(group, narrower, strict=True)])
        pick = int(((added + 1e-12) / saved).argmin())
        places[group[pick]] = place[pick]
        present = trials[pick]
        spent = cost.evaluate(present)
    return present


def total(errors: Sequence[NDArray[np.float64]], widths: Widths) -> float:
    """The summed error of widths."""
    return float(sum(curve[width] for curve, width in zip(errors, widths, strict=True)))


def _near(allowed: Sequence[int], width: int) -> NDArray[np.int64]:
    """The allowed widths within reach, thinned, the present one among them."""
    reachable = [w for w in allowed if width / REACH <= w <= width * REACH or w == width]
    # a step to the next allowed width is always within reach, so that coarse widths do not get stuck
    below, above = [w for w in allowed if w < width][-1:], [w for w in allowed if w > width][:1]
    return np.array(sorted({*_thinned(reachable), *below, *above, width}), dtype=np.int64)


def _thinned(widths: Sequence[int]) -> list[int]:
    """At most ``OPTIONS`` of them, evenly spaced, both ends among them."""
    places = np.unique(np.linspace(0, len(widths) - 1, min(len(widths), OPTIONS)).round().astype(int))
    return [widths[place] for place in places]


def _costs(cost: CostModel, present: Widths, number: int, options: NDArray[np.int64]) -> NDArray[np.float64]:
    """What each width of one group adds to the cost of the present widths, exact."""
    trials = np.repeat(present[None], len(options), axis=0)
    trials[:, number] = options
    return np.asarray(cost.evaluate_all(trials) - cost.evaluate(present), dtype=np.float64)
