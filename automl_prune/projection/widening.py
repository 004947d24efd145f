"""Widening raise by raise as far as every budget allows, for costs that grow with every width and for those that don't.

Multiply-accumulates, parameters and memory never fall when a group gets wider. Latency does: 32 channels may be faster
than 31. So where a cost is not monotone every step is looked at instead of halving the range, and a group that cannot
be raised by one step is offered its wider widths too.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from automl_prune.costs import CostModel
from automl_prune.projection.allowed import AllowedWidths, Widths

LOOKS = 512
"""At most so many steps of a way are looked at, evenly spaced, and then all between the best and the next."""


class Widening:
    """How far widths can be raised within limits.

    Args:
        allowed: The widths every group may have.
        costs: By metric; their variables are these groups, in order.
        limits: Absolute upper bounds by metric, of which ``costs`` has all.
    """

    def __init__(self, allowed: AllowedWidths, costs: Mapping[str, CostModel], limits: Mapping[str, float]) -> None:
        self._allowed = allowed
        self._costs = {metric: costs[metric] for metric in limits}
        self._limits = dict(limits)
        self._monotone = all(cost.monotone for cost in self._costs.values())

    @property
    def first(self) -> str:
        """The metric whose limit ``bound`` lowers."""
        return next(iter(self._limits))

    def fits(self, widths: Widths, bound: float) -> bool:
        """Whether every limit holds, the first not above ``bound``."""
        return self._fits(widths, self._with(bound))

    def stuck(self, widths: Widths, bound: float) -> bool:
        """Whether no group of widths that fit can be raised alone, the first limit not above ``bound``."""
        places = self._places_of(widths)
        return not self._leaps(places, list(range(len(places))), self._with(bound))

    def least(self) -> dict[str, float]:
        """The least cost by metric on the way of equal fractions, from the narrowest to the widest widths."""
        way = self._even_way()
        return {metric: float(cost.evaluate_all(way).min()) for metric, cost in self._costs.items()}

    def greatest(self) -> float:
        """The greatest cost in the first metric on the way of equal fractions, which may not be the widest widths'."""
        first = self._costs[self.first]
        way = self._allowed.highest[None] if self._monotone else self._even_way()
        return float(first.evaluate_all(way).max())

    def cheapest(self) -> Widths | None:
        """The widths on the way of equal fractions that cost least in the first metric within the limits, if any do."""
        way = self._even_way()
        fits = self._fit(way, self._limits)
        if not fits.any():
            return None
        costs = np.where(fits, self._costs[self.first].evaluate_all(way), np.inf)
        return np.asarray(way[int(costs.argmin())])

    def along(self, raises: NDArray[np.int64], bound: float) -> Widths | None:
        """The widths after the most ``raises`` that fit, filled up in their order; None when none fit.

        Args:
            raises: Groups to raise to their next width, in order, from the narrowest widths.
            bound: Of the first metric.
        """
        limits = self._with(bound)
        done = self._halving(raises, limits) if self._monotone else self._looking(raises, limits)
        return None if done is None else self._filled(self._places(raises[:done]), raises[done:], limits)

    def beyond(self, widths: Widths, raises: NDArray[np.int64], bound: float) -> Widths:
        """Widths that fit, filled up; of ``raises``, a way that passes them, the rest is taken in order."""
        places = self._places_of(widths)
        before, rest = places.copy(), []
        for group in raises.tolist():
            if before[group] > 0:
                before[group] -= 1
            else:
                rest.append(group)
        return self._filled(places, np.array(rest, dtype=np.int64), self._with(bound))

    def _with(self, bound: float) -> dict[str, float]:
        return {**self._limits, self.first: min(bound, self._limits[self.first])}

    def _fits(self, widths: Widths, limits: Mapping[str, float]) -> bool:
        return all(cost.evaluate(widths) <= limits[metric] for metric, cost in self._costs.items())

    def _fit(self, many: NDArray[np.int64], limits: Mapping[str, float]) -> NDArray[np.bool_]:
        """Whether each of many vectors of widths is within the limits, shape (many,)."""
        fits = np.ones(len(many), dtype=bool)
        for metric, cost in self._costs.items():
            fits &= cost.evaluate_all(many) <= limits[metric]
        return fits

    def _places_of(self, widths: Widths) -> NDArray[np.int64]:
        each = zip(self._allowed.by_group, widths.tolist(), strict=True)
        return np.array([own.index(width) for own, width in each], dtype=np.int64)

    def _places(self, raises: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(raises, minlength=len(self._allowed.by_group))

    def _way(self, raises: NDArray[np.int64], steps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Widths after each of some numbers of raises, ascending, shape (steps, groups)."""
        counts = np.zeros((len(steps), len(self._allowed.by_group)), dtype=np.int64)
        before = 0
        for row, step in enumerate(steps.tolist()):
            counts[row] = self._places(raises[before:step])
            before = step
        return self._allowed.widths(counts.cumsum(axis=0))

    def _even_way(self) -> NDArray[np.int64]:
        """Widths of equal fractions, shape (many, groups); the narrowest alone where nothing is cheaper."""
        raises = self._allowed.raises(np.ones(len(self._allowed.by_group)))
        return self._way(raises, np.arange(1) if self._monotone else _spread(len(raises)))

    def _halving(self, raises: NDArray[np.int64], limits: Mapping[str, float]) -> int | None:
        done, beyond = -1, len(raises) + 1
        while beyond - done > 1:
            middle = (done + beyond) // 2
            if self._fits(self._allowed.widths(self._places(raises[:middle])), limits):
                done = middle
            else:
                beyond = middle
        return None if done < 0 else done

    def _looking(self, raises: NDArray[np.int64], limits: Mapping[str, float]) -> int | None:
        steps = _spread(len(raises))
        fits = np.flatnonzero(self._fit(self._way(raises, steps), limits))
        if not fits.size:
            return None
        done = int(steps[fits[-1]])
        following = int(steps[fits[-1] + 1]) if fits[-1] + 1 < len(steps) else done + 1
        between = np.arange(done, following)
        return int(between[np.flatnonzero(self._fit(self._way(raises, between), limits))[-1]])

    def _filled(self, places: NDArray[np.int64], rest: NDArray[np.int64], limits: Mapping[str, float]) -> Widths:
        places = places.copy()
        if not self._monotone:
            return self._filled_by_leaps(places, list(dict.fromkeys(rest.tolist())), limits)
        while len(rest):
            group = rest[0]
            places[group] += 1
            if self._fits(self._allowed.widths(places), limits):
                rest = rest[1:]
            else:
                # Costs grow with every width, so what does not fit now will not fit after other raises
                # either.
                places[group] -= 1
                rest = rest[rest != group]
        return self._allowed.widths(places)

    def _filled_by_leaps(self, places: NDArray[np.int64], order: list[int], limits: Mapping[str, float]) -> Widths:
        """Groups in order, each raised to the next width that fits, until no group has one."""
        raised = True
        while raised:
            raised = False
            for group, leap in self._leaps(places, order, limits):
                before, places[group] = places[group], leap
                if self._fits(self._allowed.widths(places), limits):
                    raised = True
                else:
                    places[group] = before
        return self._allowed.widths(places)

    def _leaps(self, places: NDArray[np.int64], order: list[int], limits: Mapping[str, float]) -> list[tuple[int, int]]:
        """The groups that can be raised alone, in order, each with the place of its next width that fits."""
        options = [
            (group, place) for group in order for place in range(places[group] + 1, len(self._allowed.by_group[group]))
        ]
        if not options:
            return []
        many = np.repeat(places[None], len(options), axis=0)
        many[np.arange(len(options)), [group for group, _ in options]] = [place for _, place in options]
        found: dict[int, int] = {}
        for number in np.flatnonzero(self._fit(self._allowed.widths(many), limits)).tolist():
            found.setdefault(*options[number])
        return list(found.items())


def _spread(count: int) -> NDArray[np.int64]:
    """At most ``LOOKS`` of the numbers from 0 to ``count``, both among them, evenly spaced."""
    return np.unique(np.linspace(0, count, min(count + 1, LOOKS)).round().astype(np.int64))
