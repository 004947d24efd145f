"""Widths within every budget, shared out among the groups by a rule: uniform, global, greedy, knapsack."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from automl_prune.costs import CostModel, cost_metrics
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.projection.allocation import greedy_widths, knapsack_widths, total
from automl_prune.projection.allowed import AllowedWidths, Widths
from automl_prune.projection.widening import Widening
from automl_prune.projection.width_errors import errors_of_scores
from automl_prune.registry import nearest
from automl_prune.space import Allocation

Curves = Sequence[NDArray[np.float64]]
"""By group, what narrowing it costs in quality, at every width from 0 to the dense one."""


class Allocator:
    """Shares a budget out among groups. Whatever it returns is within every budget and uses what rounding leaves over.

    Bounds are absolute, of the first budget's metric; every other budget holds as it is. Criteria are given by group,
    in the order of ``names``.

    Args:
        names: Of the groups.
        allowed: Their widths.
        costs: By metric, functions of the widths.
        limits: Absolute upper bounds by metric, the first being that of which targets are shares.
        scores: By criterion and group, shape (width,), at least 0, not all 0.

    Attributes:
        allowed: As given.
        floor: The first budget's cost of the cheapest widths within all budgets.
        ceiling: The greatest cost within the first budget, the others apart.

    Raises:
        BudgetError: No allowed widths meet the limits; says the reachable minimum.
    """

    def __init__(
        self,
        names: Sequence[str],
        allowed: AllowedWidths,
        costs: Mapping[str, CostModel],
        limits: Mapping[str, float],
        scores: Mapping[str, Mapping[str, torch.Tensor]],
    ) -> None:
        self.allowed = allowed
        self._names, self._costs, self._limits, self._scores = tuple(names), dict(costs), dict(limits), dict(scores)
        self._curves = {name: errors_of_scores(mine) for name, mine in scores.items()}
        metric = next(iter(limits))
        self._first = costs[metric]
        self._widening = Widening(allowed, costs, limits)
        self._alone = Widening(allowed, costs, {metric: limits[metric]})
        self._cheapest = self._reached()
        self.floor = float(self._first.evaluate(self._cheapest))
        self.ceiling = min(limits[metric], max(self.floor, self._alone.greatest()))
        self.by_name = lru_cache(maxsize=16)(self._by_name)

    def reachable(self) -> dict[str, tuple[float, float]]:
        """Least and greatest cost by metric that the allowed widths have, the budget apart."""
        least = self._widening.least()
        return {m: (least[m], float(self._costs[m].evaluate(self.allowed.highest))) for m in self._limits}

    def spend(self, target: float, make: Callable[[float], Widths]) -> Widths:
        """Widths that spend a share of the budget.

        Args:
            target: Share, in (0, 1], of the first budget; where another budget stops the widths at the whole budget
                before the first one does, of what they cost there.
            make: The widths within a bound.
        """
        if len(self._limits) == 1:
            return make(self._bound(target, self.ceiling))
        whole = make(self.ceiling)
        if target >= 1:
            return whole
        stopped_by_first = self._alone.stuck(whole, self.ceiling)
        spent = self.ceiling if stopped_by_first else float(self._first.evaluate(whole))
        return make(self._bound(target, spent))

    def _bound(self, share: float, spent: float) -> float:
        return max(self.floor, share * spent)

    def _by_name(self, allocation: str, criteria: tuple[str, ...], bound: float) -> Widths:
        """The widths of an allocation, as ``Space`` names it; asked for as ``by_name``, which remembers the last."""
        match allocation:
            case "uniform":
                return self.uniform(bound)
            case "global":
                return self.ranked(criteria, bound)
            case "greedy":
                return self.greedy(self.curves(criteria), bound)
            case "knapsack":
                return self.knapsack(self.curves(criteria), bound)
        raise ConfigError(f"there is no allocation {allocation!r}; {nearest(allocation, get_args(Allocation))}")

    def uniform(self, bound: float) -> Widths:
        """The same fraction of every group."""
        return self.weighted(np.ones(len(self._names)), bound)

    def weighted(self, weights: NDArray[np.float64], bound: float) -> Widths:
        """Fractions in proportion to ``weights``, shape (groups,)."""
        return self._project(self.allowed.raises(weights), bound)

    def ranked(self, criteria: Sequence[str], bound: float, *, per_cost: bool = False) -> Widths:
        """The best channels of all groups together, their scores per unit of cost with ``per_cost``."""
        low, high = self.allowed.steps
        values = np.empty(len(low))
        for number, (name, criterion) in enumerate(zip(self._names, criteria, strict=True)):
            mine = self.allowed.group == number
            best = np.sort(self._scores[criterion][name].double().numpy())[::-1]
            summed = np.concatenate([[0.0], np.cumsum(best)])
            means = (summed[high[mine]] - summed[low[mine]]) / (high[mine] - low[mine])
            values[mine] = means / self._saving(number) if per_cost else means
        return self._project(self.allowed.ordered(-values), bound)

    def greedy(self, curves: Curves, bound: float) -> Widths:
        """From dense widths, always the step that adds least error for the cost it saves (``greedy_widths``)."""
        return self._towards(greedy_widths(self._first, self.allowed.by_group, curves, bound), bound)

    def knapsack(self, curves: Curves, bound: float) -> Widths:
        """Least summed error (``knapsack_widths``), from uniform and from greedy widths, whichever ends lower."""
        found = [
            knapsack_widths(self._first, self.allowed.by_group, curves, bound, start, lambda w: self._towards(w, bound))
            for start in (self.uniform(bound), self.greedy(curves, bound))
        ]
        return min(found, key=lambda widths: total(curves, widths))

    def towards(self, widths: Widths, bound: float) -> Widths:
        """In the proportions of the given widths, which another space may have allowed.

        They stay themselves where they are allowed and fit, and become wider where they leave room.
        """
        if any(width not in own for own, width in zip(self.allowed.by_group, widths.tolist(), strict=True)):
            return self._project(self.allowed.raises(widths / self.allowed.highest), bound)
        return self._towards(widths, bound)

    def curves(self, criteria: Sequence[str]) -> list[NDArray[np.float64]]:
        """The errors of every group by its own criterion's scores."""
        return [self._curves[name][group] for name, group in zip(criteria, self._names, strict=True)]

    def _towards(self, widths: Widths, bound: float) -> Widths:
        raises = self.allowed.raises(widths / self.allowed.highest)
        if self._widening.fits(widths, bound):
            return self._widening.beyond(widths, raises, bound)
        return self._project(raises, bound)

    def _project(self, raises: NDArray[np.int64], bound: float) -> Widths:
        """The widths after as many ``raises`` (groups, in order) as the bound and budgets allow, shape (groups,)."""
        found = self._widening.along(raises, bound)
        return self._widening.beyond(self._cheapest, raises, bound) if found is None else found

    def _saving(self, number: int) -> float:
        """What a channel of a group costs in the dense model, in the first budget's metric, on average."""
        narrow = self.allowed.highest.copy()
        narrow[number] = self.allowed.lowest[number]
        channels = self.allowed.highest[number] - narrow[number]
        dense = float(self._first.evaluate(self.allowed.highest))
        saved = dense - float(self._first.evaluate(narrow))
        return max(saved, 1e-9 * dense) / max(1, int(channels))  # a latency may not fall at all

    def _reached(self) -> Widths:
        """The cheapest widths within all budgets; ``BudgetError`` where there are none."""
        found = self._widening.cheapest()
        if found is not None:
            return found
        dense = {metric: float(self._costs[metric].evaluate(self.allowed.highest)) for metric in self._limits}
        problems = [
            f"budget {metric} <= {cost_metrics[metric].show(self._limits[metric])} cannot be reached: the narrowest "
            f"widths the search space allows cost {cost_metrics[metric].show(least)}, "
            f"{least / dense[metric]:.2%} of the dense model"
            for metric, (least, _) in self.reachable().items()
            if least > self._limits[metric]
        ]
        together = f"the budgets {' and '.join(self._limits)} cannot be met together by widths of equal fractions"
        raise BudgetError(
            "\n".join(problems or [together])
            + "\nraise it, or let groups be narrower (min_width, max_prune_ratio, round_to, exclude)"
        )
