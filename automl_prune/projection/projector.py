"""From a point of the search space to widths that meet every budget: no trial is spent over budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.channels import ChannelGraph
from automl_prune.costs import CostModel
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.projection.allocator import Allocator
from automl_prune.projection.allowed import AllowedWidths, Widths
from automl_prune.projection.stages import stages_of
from automl_prune.projection.width_errors import WidthErrors
from automl_prune.registry import nearest
from automl_prune.space import FloatParameter, Parameter, Space


class Projector:
    """Maps points of a space to candidates within the budget. Deterministic, changes no argument.

    A point gives every group g a weight ``F_g * I_g ** importance_exponent * exp(residual_g)`` (of its stage, where the
    space says so, and with a slope over depth), and the group wants to keep the fraction ``scale * weight`` of its
    channels, rounded to the nearest allowed width. ``F_g`` is the fraction that the point's allocation keeps at the
    target by the space's first criterion (``Allocator``), whichever criterion then chooses the channels.
    The scale is the greatest at which the cost meets the target; what rounding leaves over then goes to
    single groups, one step at a time, to the one whose fraction falls shortest of its next width first.
    So no group of the result can be raised by a step within the target and the budgets, and with one allocation's
    fractions a larger target never gives a cheaper candidate, where costs grow with every width; where they do not, no
    group of the result can be raised to any wider width (``widening``).

    In a space of coefficients (SPDY: Frantar & Alistarh 2022, arXiv:2201.13096, section 3.3) a point gives every
    group's error (``errors_of_scores``) a factor ``exp(coefficient_g)``, and the widths are those of least sum
    (``knapsack``), filled up in the same way.

    The target is ``target_cost`` times the greatest cost within the first budget; where another budget stops the
    widths before, times what they cost there (``Allocator.spend``). Every other budget holds as it is.

    ``I_g`` comes from the participation ratio ``(sum s)^2 / (n sum s^2)`` of the criterion's scores of the
    group, from 1/n (one channel has everything) to 1 (all are equal). Its logarithm is standardised over the
    groups, because networks differ far more in how widely the ratios spread than in what they say:
    ``log I_g`` has mean 0 and standard deviation 1. With a positive exponent, a group whose importance sits
    in few channels is cut deeper.

    Args:
        graph: Groups and exact costs.
        space: What may be varied.
        limits: Absolute upper bounds by metric, the first being the target's (``Budget.limits``).
        scores: By criterion and group, shape (width,), at least 0, not all 0 (``score_groups``).
        costs: By metric, what is known of costs beside the graph's own; the variables are the graph's groups.
        allowed: Widths by group, ascending, the dense one last; by default those of the space.

    Raises:
        BudgetError: No allowed widths meet the limits; says the reachable minimum.
        ConfigError: The space names a group that does not exist.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        space: Space,
        limits: Mapping[str, float],
        scores: Mapping[str, Mapping[str, torch.Tensor]],
        costs: Mapping[str, CostModel] | None = None,
        allowed: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._space = space
        self._dense = graph.widths
        self._names = tuple(self._dense)
        self._stages = stages_of(graph)
        self._units = [self._stages[n] if space.scope == "stage" else n for n in self._names]
        self._costs: dict[str, CostModel] = {**graph.cost_models, **(costs or {})}
        _check_known(self._costs, limits)
        self._first = self._costs[next(iter(limits))]
        widths = allowed or {name: limit.widths() for name, limit in space.limits(graph.groups).items()}
        self._allowed = AllowedWidths(tuple(widths[name] for name in self._names))
        mine = {name: dict(scores[name]) for name in space.criteria}
        self._allocator = Allocator(self._names, self._allowed, self._costs, limits, mine)
        self._importance = {name: self._importances(scores[name]) for name in space.criteria}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The space's parameters for this graph, without targets below what the narrowest widths cost."""
        found = self._space.parameters(self._names, self._stages)
        least = min(1.0, self._allocator.floor / self._allocator.ceiling)
        return tuple(
            replace(parameter, low=max(parameter.low, least))
            if isinstance(parameter, FloatParameter) and parameter.name == "target_cost"
            else parameter
            for parameter in found
        )

    def reachable(self) -> dict[str, tuple[float, float]]:
        """Least and greatest cost by metric that the space's width limits allow, the budget apart."""
        return self._allocator.reachable()

    def network(self) -> dict[str, tuple[float, ...]]:
        """What is known of the layers behind each group's or stage's parameter, for strategies that learn from it.

        Returns:
            By parameter, summed over a stage's groups, in [0, 1]: the share of the first budget's cost that goes
            when the group is as narrow as it may be, the same of every known cost, and its width relative to the
            widest group.
        """
        costs = [self._first, *self._costs.values()]
        widest = max(self._allowed.highest, default=1)
        found: dict[str, tuple[float, ...]] = {}
        for number in range(len(self._names)):
            narrow = self._allowed.highest.copy()
            narrow[number] = self._allowed.lowest[number]
            shares = (1 - cost.evaluate(narrow) / cost.evaluate(self._allowed.highest) for cost in costs)
            values = (*shares, float(self._allowed.highest[number] / widest))
            parameter = f"{self._space.correction}/{self._units[number]}"
            before = found.get(parameter, (0.0,) * len(values))
            found[parameter] = tuple(min(1.0, a + max(0.0, b)) for a, b in zip(before, values, strict=True))
        return found

    # ---- points

    def candidate(self, point: Mapping[str, float | str]) -> Candidate:
        """The candidate of a point, within every budget; a target out of reach gives the narrowest widths.

        Args:
            point: A value for each of ``parameters``, no more and no less; else ``ConfigError``.
        """
        self._check_point(point)
        criteria, target = self._criteria(point), float(point["target_cost"])
        return self._candidate(self._allocator.spend(target, self._widths(point, criteria)), criteria)

    def _widths(self, point: Mapping[str, float | str], criteria: Sequence[str]) -> Callable[[float], Widths]:
        """The widths of a point within a bound of the first cost."""
        allocator = self._allocator
        slope = float(point.get("depth_slope", 0.0)) * np.linspace(-1, 1, len(self._names))
        own = [float(point.get(f"{self._space.correction}/{unit}", 0.0)) for unit in self._units]
        correction = np.array(own) + slope
        if self._space.coefficient is not None:
            curves = allocator.curves(criteria)
            weighted = [curve * math.exp(each) for curve, each in zip(curves, correction, strict=True)]
            return lambda bound: allocator.knapsack(weighted, bound)
        exponent = float(point.get("importance_exponent", self._space.importance_exponent[0]))
        importance = np.array([self._importance[name][i] for i, name in enumerate(criteria)])
        weights = importance**exponent * np.exp(correction)
        allocation = str(point.get("allocation", self._space.allocations[0]))
        if allocation == "uniform":  # all fractions are 1, not what rounding makes of them
            return lambda bound: allocator.weighted(weights, bound)
        first = tuple(self._everywhere(self._space.criteria[0]))

        def corrected(bound: float) -> Widths:
            widths = allocator.by_name(allocation, first, bound)
            return widths if (weights == 1).all() else allocator.weighted(weights * widths / dense, bound)

        dense = self._allowed.highest
        return corrected

    def uniform_point(self, criterion: str, target: float) -> dict[str, float | str]:
        """The point without corrections, of uniform widths where the space has them; where coefficients, all are 1.

        Args:
            criterion: One of the space's, for all groups; else ``ConfigError``.
            target: Value of ``target_cost``; moved to the nearer end of its range when outside.
        """
        self._check_criterion(criterion)
        allocations = self._space.allocations
        point: dict[str, float | str] = {}
        for parameter in self.parameters:
            if parameter.name == "allocation":
                point[parameter.name] = "uniform" if "uniform" in allocations else allocations[0]
            elif not isinstance(parameter, FloatParameter):
                point[parameter.name] = criterion
            elif parameter.name == "target_cost":
                point[parameter.name] = min(max(target, parameter.low), parameter.high)
            else:
                point[parameter.name] = 0.0
        return point

    def point_near(self, candidate: Candidate, target: float) -> dict[str, float | str]:
        """The point of a candidate with one criterion for all groups, or one near it where the space has none.

        Args:
            candidate: Any within the space's width limits.
            target: Share of the budget it was made for.

        Returns:
            A point p; the space has the candidate exactly when ``self.candidate(p)`` equals it.
        """
        criterion = next((choice.criterion for choice in candidate.choices.values()), self._space.criteria[0])
        plain = self.uniform_point(criterion, target)
        names = self._space.allocations if "allocation" in plain else ()
        starts = [{**plain, "allocation": name} for name in names] or [plain]
        found = [self.candidate(start) for start in starts]
        if candidate in found:
            return starts[found.index(candidate)]
        wanted = np.array([candidate.widths.get(name, self._dense[name]) for name in self._names])
        bases = [  # what the weights correct; of uniform widths the fractions are 1, not what rounding makes of them
            self._dense if start.get("allocation", self._space.allocations[0]) == "uniform" else its.widths
            for start, its in zip(starts, found, strict=True)
        ]
        logs = [np.log(wanted / [base[name] for name in self._names]) for base in bases]
        closest = min(range(len(starts)), key=lambda number: float(np.ptp(logs[number])))
        point, mine = starts[closest], logs[closest] - (logs[closest].max() + logs[closest].min()) / 2
        for parameter in self.parameters:
            kind, _, unit = parameter.name.partition("/")
            if isinstance(parameter, FloatParameter) and kind == "residual":
                its = [log for log, each in zip(mine.tolist(), self._units, strict=True) if each == unit]
                point[parameter.name] = min(parameter.high, max(parameter.low, sum(its) / len(its)))
        return point

    # ---- allocations with one criterion for all groups

    def uniform(self, criterion: str, target: float = 1.0) -> Candidate:
        """The candidate that keeps the same fraction of every group, within every budget.

        Args:
            criterion: One of the space's; else ``ConfigError``.
            target: Share of the budget to spend, in (0, 1].
        """
        return self._candidate(self._allocator.spend(target, self._allocator.uniform), self._everywhere(criterion))

    def ranked(self, criterion: str, target: float = 1.0, *, per_cost: bool = False) -> Candidate:
        """The candidate that keeps the best channels of all groups together, within every budget.

        Scores of groups are comparable since each was divided by its mean. Channels come in the steps the space
        allows, a step at the mean score of its channels; the best steps are taken as far as they fit, then single
        ones that still do. Uniform widths are often better (scores of shared widths do not add up): try both.

        Args:
            criterion: One of the space's; else ``ConfigError``.
            target: Share of the budget to spend, in (0, 1].
            per_cost: Whether a step is worth its score per unit of the first budget's cost that a channel of its
                group saves in the dense model, rather than its score.
        """
        criteria = self._everywhere(criterion)
        ranked = partial(self._allocator.ranked, criteria, per_cost=per_cost)
        return self._candidate(self._allocator.spend(target, ranked), criteria)

    def greedy(self, criterion: str, target: float = 1.0, errors: WidthErrors | None = None) -> Candidate:
        """Narrow, from the dense widths, what adds least error for the cost it saves (``allocation.greedy_widths``).

        Args:
            criterion: One of the space's, which chooses the channels; else ``ConfigError``.
            target: Share of the budget to spend, in (0, 1].
            errors: By group and width; by default those of the criterion's scores.
        """
        criteria = self._everywhere(criterion)
        greedy = partial(self._allocator.greedy, self._curves(criteria, errors))
        return self._candidate(self._allocator.spend(target, greedy), criteria)

    def knapsack(self, criterion: str, target: float = 1.0, errors: WidthErrors | None = None) -> Candidate:
        """The widths of least summed error (``allocation.knapsack_widths``); arguments as for ``greedy``.

        Found from uniform widths, and from greedy ones; of both results the one with the smaller sum.
        """
        criteria = self._everywhere(criterion)
        knapsack = partial(self._allocator.knapsack, self._curves(criteria, errors))
        return self._candidate(self._allocator.spend(target, knapsack), criteria)

    def alike(self, candidate: Candidate, target: float = 1.0) -> Candidate:
        """The candidate with the proportions and criteria of another one, within every budget.

        Args:
            candidate: Of the same groups, perhaps of another budget; a group that it does not name keeps all.
            target: Share of the budget to spend, in (0, 1].
        """
        default = self._space.criteria[0]
        criteria = [c.criterion if (c := candidate.choices.get(name)) else default for name in self._names]
        for criterion in criteria:
            self._check_criterion(criterion)
        widths = np.array([candidate.widths.get(name, self._dense[name]) for name in self._names], dtype=np.int64)
        return self._candidate(self._allocator.spend(target, partial(self._allocator.towards, widths)), criteria)

    def _curves(self, criteria: Sequence[str], errors: WidthErrors | None) -> list[NDArray[np.float64]]:
        return self._allocator.curves(criteria) if errors is None else [errors[name] for name in self._names]

    def _everywhere(self, criterion: str) -> list[str]:
        self._check_criterion(criterion)
        return [criterion] * len(self._names)

    def _candidate(self, widths: Widths, criteria: Sequence[str]) -> Candidate:
        return Candidate(
            {
                name: GroupChoice(int(width), criterion)
                for name, width, criterion in zip(self._names, widths, criteria, strict=True)
            }
        )

    def _importances(self, scores: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
        """The importance of every group, shape (groups,); all ones where the groups do not differ."""
        logs = np.log([participation_ratio(scores[name]) for name in self._names])
        spread = logs.std() if len(logs) else 0.0
        return np.exp((logs - logs.mean()) / spread) if spread > 1e-9 else np.ones(len(logs))

    def _criteria(self, point: Mapping[str, float | str]) -> list[str]:
        """The criterion of every group."""
        default = point.get("criterion", self._space.criteria[0])
        chosen = [str(point.get(f"criterion/{name}", default)) for name in self._names]
        for name in chosen:
            self._check_criterion(name)
        return chosen

    def _check_criterion(self, name: str) -> None:
        if name not in self._importance:
            raise ConfigError(f"criterion {name!r} is not in the search space; {nearest(name, self._importance)}")

    def _check_point(self, point: Mapping[str, float | str]) -> None:
        expected = {parameter.name for parameter in self.parameters}
        for name in point:
            if name not in expected:
                raise ConfigError(f"point: {name!r} is no parameter of the search space; {nearest(name, expected)}")
        if missing := sorted(expected - set(point)):
            raise ConfigError(f"point: no value for {', '.join(missing)}; give every parameter of the search space")
        for parameter in self.parameters:
            value = point[parameter.name]
            if isinstance(parameter, FloatParameter) and (isinstance(value, str) or not math.isfinite(value)):
                raise ConfigError(f"point: {parameter.name} is {value!r}; give a finite number")


def participation_ratio(scores: torch.Tensor) -> float:
    """How evenly scores are spread: ``(sum s)^2 / (n sum s^2)``, in [1/n, 1]; for scores >= 0, not all 0."""
    values = scores.double()
    return float(values.sum() ** 2 / (len(values) * values.square().sum()))


def _check_known(costs: Mapping[str, CostModel], limits: Mapping[str, float]) -> None:
    if not limits:
        raise BudgetError("there is no budget to project onto; bound at least one cost, e.g. macs=0.5")
    for metric in limits:
        if metric not in costs:
            raise BudgetError(f"budget {metric}: not a cost known before a model is built; {nearest(metric, costs)}")
