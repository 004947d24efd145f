"""From a point of the search space to widths that meet every budget: no trial is spent over budget."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from automl_prune.budget import format_quantity
from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.channels import ChannelGraph
from automl_prune.costs import WidthPolynomial
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.registry import nearest
from automl_prune.space import FloatParameter, Parameter, Space

Widths = NDArray[np.int64]


class Projector:
    """Maps points of a space to candidates within the budget. Deterministic, immutable, changes no argument.

    A point gives every group g a weight ``I_g ** importance_exponent * exp(residual_g)``, and the group
    wants to keep the fraction ``scale * weight`` of its channels, rounded to the nearest allowed width.
    The scale is the greatest at which the cost meets the target; what rounding leaves over then goes to
    single groups, one step at a time, to the one whose fraction falls shortest of its next width first.
    So no group of the result can be raised by a step within the target and the budgets, and a larger
    target never gives a cheaper candidate.

    The target is ``target_cost`` times the greatest cost within the first budget; every other budget
    holds as it is.

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
    ) -> None:
        self._space = space
        self._names = tuple(group.name for group in graph.groups)
        self._limits = dict(limits)
        self._polynomials = _polynomials(graph, limits)
        self._ladder = _Ladder(tuple(limit.widths() for limit in space.limits(graph.groups).values()))
        self._costs = graph.polynomials
        self._scores = {name: dict(scores[name]) for name in space.criteria}
        self._importance = {name: self._importances(scores[name]) for name in space.criteria}
        self._check_reachable(graph.dense_costs)
        metric, first = next(iter(self._polynomials.items()))
        self._floor = first.evaluate(self._ladder.lowest)
        self._ceiling = min(self._limits[metric], first.evaluate(self._ladder.highest))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The space's parameters for this graph, without targets below what the narrowest widths cost."""
        found = self._space.parameters(self._names)
        least = min(1.0, self._floor / self._ceiling)
        return tuple(
            replace(parameter, low=max(parameter.low, least))
            if isinstance(parameter, FloatParameter) and parameter.name == "target_cost"
            else parameter
            for parameter in found
        )

    def reachable(self) -> dict[str, tuple[float, float]]:
        """Least and greatest cost by metric that the space's width limits allow, the budget apart."""
        return {
            metric: (
                float(polynomial.evaluate(self._ladder.lowest)),
                float(polynomial.evaluate(self._ladder.highest)),
            )
            for metric, polynomial in self._polynomials.items()
        }

    def network(self) -> dict[str, tuple[float, ...]]:
        """What is known of the layers behind each group's parameter, for strategies that learn from it.

        Returns:
            By parameter: the share of the first budget's cost that goes when the group is as narrow as it may be,
            the same of every known cost, and its width relative to the widest group; all in [0, 1].
        """
        costs = [next(iter(self._polynomials.values())), *self._costs.values()]
        widest = max(self._ladder.highest, default=1)
        found = {}
        for number, name in enumerate(self._names):
            narrow = self._ladder.highest.copy()
            narrow[number] = self._ladder.lowest[number]
            shares = (1 - cost.evaluate(narrow) / cost.evaluate(self._ladder.highest) for cost in costs)
            found[f"residual/{name}"] = (*shares, float(self._ladder.highest[number] / widest))
        return found

    def candidate(self, point: Mapping[str, float | str]) -> Candidate:
        """The candidate of a point, within every budget; a target out of reach gives the narrowest widths.

        Args:
            point: A value for each of ``parameters``, no more and no less; else ``ConfigError``.
        """
        self._check_point(point)
        criteria = self._criteria(point)
        exponent = float(point.get("importance_exponent", self._space.importance_exponent[0]))
        importance = np.array([self._importance[name][i] for i, name in enumerate(criteria)])
        residual = np.array([float(point.get(f"residual/{name}", 0.0)) for name in self._names])
        target = max(self._floor, float(point["target_cost"]) * self._ceiling)
        raises = self._ladder.raises(importance**exponent * np.exp(residual))
        return self._candidate(self._project(raises, target), criteria)

    def ranked(self, criterion: str, target: float = 1.0, *, per_cost: bool = False) -> Candidate:
        """The candidate that keeps the best channels of all groups together, within every budget.

        Scores of groups are comparable since each was divided by its mean. Channels come in the steps the space
        allows, a step at the mean score of its channels; the best steps are taken as far as they fit, then single
        ones that still do. Uniform widths are often better (scores of shared widths do not add up): try both.

        Args:
            criterion: One of the space's; else ``ConfigError``.
            target: Share of the first budget to spend, in (0, 1].
            per_cost: Whether a step is worth its score per unit of the first budget's cost that a channel of its
                group saves in the dense model, rather than its score.
        """
        self._check_criterion(criterion)
        low, high = self._ladder.steps
        values = np.empty(len(low))
        for number, name in enumerate(self._names):
            mine = self._ladder.group == number
            best = np.sort(self._scores[criterion][name].double().numpy())[::-1]
            total = np.concatenate([[0.0], np.cumsum(best)])
            means = (total[high[mine]] - total[low[mine]]) / (high[mine] - low[mine])
            values[mine] = means / self._saving(number) if per_cost else means
        target_cost = max(self._floor, target * self._ceiling)
        return self._candidate(
            self._project(self._ladder.ordered(-values), target_cost), [criterion] * len(self._names)
        )

    def _saving(self, number: int) -> float:
        """What a channel of a group costs in the dense model, in the first budget's metric, on average."""
        polynomial = next(iter(self._polynomials.values()))
        narrow = self._ladder.highest.copy()
        narrow[number] = self._ladder.lowest[number]
        channels = self._ladder.highest[number] - narrow[number]
        return float(polynomial.evaluate(self._ladder.highest) - polynomial.evaluate(narrow)) / max(1, int(channels))

    def _candidate(self, widths: Widths, criteria: Sequence[str]) -> Candidate:
        return Candidate(
            {
                name: GroupChoice(int(width), criterion)
                for name, width, criterion in zip(self._names, widths, criteria, strict=True)
            }
        )

    def uniform_point(self, criterion: str, target: float) -> dict[str, float | str]:
        """The point where every group keeps the same fraction: the baseline a search has to beat.

        Args:
            criterion: One of the space's, for all groups; else ``ConfigError``.
            target: Value of ``target_cost``; moved to the nearer end of its range when outside.
        """
        self._check_criterion(criterion)
        point: dict[str, float | str] = {}
        for parameter in self.parameters:
            if not isinstance(parameter, FloatParameter):
                point[parameter.name] = criterion
            elif parameter.name == "target_cost":
                point[parameter.name] = min(max(target, parameter.low), parameter.high)
            else:
                point[parameter.name] = 0.0
        return point

    def _project(self, raises: NDArray[np.int64], target: float) -> Widths:
        """The widths after as many ``raises`` (groups, in order) as target and budgets allow, shape (groups,)."""
        metric = next(iter(self._limits))
        limits = {**self._limits, metric: min(target, self._limits[metric])}
        done, beyond = 0, len(raises) + 1
        while beyond - done > 1:
            middle = (done + beyond) // 2
            if self._fits(self._ladder.widths(self._rungs(raises[:middle])), limits):
                done = middle
            else:
                beyond = middle
        rungs, rest = self._rungs(raises[:done]), raises[done:]
        while len(rest):
            group = rest[0]
            rungs[group] += 1
            if self._fits(self._ladder.widths(rungs), limits):
                rest = rest[1:]
            else:
                # Costs grow with every width, so what does not fit now will not fit after other raises
                # either.
                rungs[group] -= 1
                rest = rest[rest != group]
        return self._ladder.widths(rungs)

    def _rungs(self, raises: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(raises, minlength=len(self._names))

    def _fits(self, widths: Widths, limits: Mapping[str, float]) -> bool:
        return all(self._polynomials[metric].evaluate(widths) <= limit for metric, limit in limits.items())

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

    def _check_reachable(self, dense_costs: Mapping[str, float]) -> None:
        problems = [
            f"budget {metric} <= {format_quantity(self._limits[metric])} cannot be reached: the narrowest "
            f"widths the search space allows cost {format_quantity(least)}, "
            f"{least / dense_costs[metric]:.2%} of the dense model"
            for metric, (least, _) in self.reachable().items()
            if least > self._limits[metric]
        ]
        if problems:
            raise BudgetError(
                "\n".join(problems)
                + "\nraise it, or let groups be narrower (min_width, max_prune_ratio, round_to, exclude)"
            )


class _Ladder:
    """The allowed widths of every group as rungs from 0, and the order in which a growing scale climbs them.

    Args:
        allowed: Allowed widths by group, ascending; the last is the dense width.

    Attributes:
        group: The group of every raise by one rung, group after group, shape (raises,).
        steps: Widths before and after every raise, likewise.
    """

    def __init__(self, allowed: tuple[tuple[int, ...], ...]) -> None:
        self._flat = np.array([width for widths in allowed for width in widths], dtype=np.int64)
        counts = np.array([len(widths) for widths in allowed], dtype=np.int64)
        self._first = np.cumsum(counts) - counts
        self.group = np.repeat(np.arange(len(allowed)), counts - 1)
        self.steps = tuple(
            np.array([pair[end] for widths in allowed for pair in pairwise(widths)], dtype=np.int64) for end in (0, 1)
        )
        # Rounding to the nearest allowed width climbs a rung where the wanted fraction passes the middle
        # between two.
        self._middle = np.array([(a + b) / 2 / widths[-1] for widths in allowed for a, b in pairwise(widths)])
        self.lowest: Widths = self.widths(np.zeros_like(counts))
        self.highest: Widths = self.widths(counts - 1)

    def widths(self, rungs: NDArray[np.int64]) -> Widths:
        """The widths at given rungs, both of shape (groups,)."""
        return np.asarray(self._flat[self._first + rungs])

    def raises(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """The group of every single raise, ordered by the scale at which ``scale * weight`` calls for it."""
        return self.ordered(self._middle / weights[self.group])

    def ordered(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """The group of every single raise, by ascending key, shape (raises,); the rungs of a group stay in order."""
        keys = keys.copy()
        for number in range(len(self._first)):
            mine = self.group == number
            keys[mine] = np.maximum.accumulate(keys[mine])
        return np.asarray(self.group[np.argsort(keys, kind="stable")])


def participation_ratio(scores: torch.Tensor) -> float:
    """How evenly scores are spread: ``(sum s)^2 / (n sum s^2)``, in [1/n, 1]; for scores >= 0, not all 0."""
    values = scores.double()
    return float(values.sum() ** 2 / (len(values) * values.square().sum()))


def _polynomials(graph: ChannelGraph, limits: Mapping[str, float]) -> dict[str, WidthPolynomial]:
    """The polynomials of the budgeted metrics, in the budget's order."""
    if not limits:
        raise BudgetError("there is no budget to project onto; bound at least one cost, e.g. macs=0.5")
    known = graph.polynomials
    for metric in limits:
        if metric not in known:
            raise BudgetError(f"budget {metric}: not a cost known before a model is built; {nearest(metric, known)}")
    return {metric: known[metric] for metric in limits}
