"""The Pareto front of a score against a cost: plain values in, proved values out, no study and no torch."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One evaluated model as a front sees it.

    Attributes:
        trial: Number of the trial it comes from.
        score: Value of the task's metric, finite.
        cost: Value of the cost on the front's other axis, finite; less is better.
        feasible: Whether every budget holds.
        rung: How thoroughly it was evaluated; only equal rungs can be compared.
    """

    trial: int
    score: float
    cost: float
    feasible: bool
    rung: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.score) and math.isfinite(self.cost)):
            raise ValueError(
                f"trial {self.trial}: score {self.score} and cost {self.cost} must be finite; "
                "an evaluation without a number is a failed trial, not a point"
            )


@dataclass(frozen=True, slots=True)
class ParetoFront:
    """Feasible points of one rung of which none is at least as good as another in both score and cost. Immutable.

    The constructor proves it, so that nobody has to check later. An empty front is a front.

    Attributes:
        points: In ascending order of cost, and so from the worst to the best score.
        higher_is_better: Direction of the score.

    Raises:
        ValueError: When a point is infeasible, rungs differ, or a point is dominated or given twice.
    """

    points: tuple[FrontPoint, ...]
    higher_is_better: bool

    def __post_init__(self) -> None:
        points = tuple(sorted(self.points, key=lambda point: (point.cost, point.trial)))
        object.__setattr__(self, "points", points)
        for point in points:
            if not point.feasible:
                raise ValueError(f"trial {point.trial} is over budget; a front holds feasible points only")
        rungs = sorted({point.rung for point in points})
        if len(rungs) > 1:
            raise ValueError(f"points of rungs {rungs} are not comparable; use ParetoFront.of to select one")
        # In order of cost, "each neighbour costs more and scores better" is the whole O(n^2) definition.
        for cheap, dear in pairwise(points):
            if not (dear.cost > cheap.cost and self._sign * dear.score > self._sign * cheap.score):
                raise ValueError(
                    f"trials {cheap.trial} and {dear.trial} dominate or equal one another: "
                    f"(score, cost) = {(cheap.score, cheap.cost)} and {(dear.score, dear.cost)}"
                )

    @classmethod
    def of(cls, points: Iterable[FrontPoint], *, higher_is_better: bool, rung: int | None = None) -> ParetoFront:
        """The front of arbitrary points: those that are feasible, of one rung, and not dominated.

        Args:
            points: In any order. Of points with equal score and cost the lowest trial stays.
            higher_is_better: Direction of the score.
            rung: Which rung to compare at; by default the highest that a feasible point has reached.
        """
        feasible = [point for point in points if point.feasible]
        if rung is None:
            rung = max((point.rung for point in feasible), default=0)
        sign = 1.0 if higher_is_better else -1.0
        level = (point for point in feasible if point.rung == rung)
        kept: list[FrontPoint] = []
        for point in sorted(level, key=lambda p: (p.cost, -sign * p.score, p.trial)):
            if not kept or sign * point.score > sign * kept[-1].score:
                kept.append(point)
        return cls(tuple(kept), higher_is_better)

    @property
    def rung(self) -> int | None:
        """The points' common rung; None when there are no points."""
        return self.points[0].rung if self.points else None

    @property
    def trials(self) -> tuple[int, ...]:
        """Numbers of the points' trials, in order of cost."""
        return tuple(point.trial for point in self.points)

    @property
    def _sign(self) -> float:
        return 1.0 if self.higher_is_better else -1.0

    def best(self, cost: float = math.inf) -> FrontPoint | None:
        """The point with the best score among those that cost at most ``cost``; None when there is none."""
        index = bisect_right(self.points, cost, key=lambda point: point.cost)
        return self.points[index - 1] if index else None

    def dominates(self, point: FrontPoint) -> bool:
        """Whether some point of the front is at least as good as ``point`` in both score and cost."""
        rival = self.best(point.cost)
        return rival is not None and self._sign * rival.score >= self._sign * point.score

    def knee(self) -> FrontPoint | None:
        """Where spending more starts to buy less: the point farthest beyond the chord between the front's ends.

        Both axes are scaled to [0, 1] between the ends first (Das, "On characterizing the knee of the Pareto
        curve", 1999). None with fewer than three points, and when no point lies on the better side of the chord.
        """
        if len(self.points) < 3:
            return None
        cost = np.array([point.cost for point in self.points])
        score = self._sign * np.array([point.score for point in self.points])
        # Distance to the diagonal, up to the factor 1/sqrt(2) that all points share.
        beyond = (score - score[0]) / (score[-1] - score[0]) - (cost - cost[0]) / (cost[-1] - cost[0])
        index = int(beyond.argmax())
        return self.points[index] if beyond[index] > 1e-12 else None

    def hypervolume(self, reference: tuple[float, float]) -> float:
        """Area between the front and a reference point, exact: what is dominated by the front and not yet by it.

        Args:
            reference: (score, cost) of a bad point. Front points that are not better in both add nothing.

        Returns:
            The area in units of score times cost, at least 0.
        """
        score, limit = reference
        costs = [min(point.cost, limit) for point in self.points] + [limit]
        area = 0.0
        for point, (cost, following) in zip(self.points, pairwise(costs), strict=True):
            area += max(0.0, self._sign * (point.score - score)) * (following - cost)
        return area


def reference_point(score: float, cost: float, *, higher_is_better: bool) -> tuple[float, float]:
    """A bad point, fixed by the dense model alone, so that areas of one study compare at any time.

    Args:
        score: Of the dense model.
        cost: Of the dense model.
        higher_is_better: Direction of the score.

    Returns:
        (score, cost): half the dense score, or twice it where lower is better, at the dense model's cost.
    """
    return (score - abs(score) / 2 if higher_is_better else score + abs(score)), cost


class GrowingFront:
    """The front of points that come one after another, and the area that it dominates.

    Args:
        reference: (score, cost), as for ``ParetoFront.hypervolume``.
        higher_is_better: Direction of the score.

    Attributes:
        front: Of the points so far.
        area: Its hypervolume.
    """

    def __init__(self, reference: tuple[float, float], *, higher_is_better: bool) -> None:
        self._reference = reference
        self.front = ParetoFront((), higher_is_better)
        self.area = 0.0

    def add(self, point: FrontPoint) -> float:
        """Take up a point; an infeasible one leaves everything as it was. Returns the area."""
        if point.feasible and not self.front.dominates(point):
            self.front = ParetoFront.of((*self.front.points, point), higher_is_better=self.front.higher_is_better)
            self.area = self.front.hypervolume(self._reference)
        return self.area


def hypervolume_history(
    points: Sequence[FrontPoint], reference: tuple[float, float], *, higher_is_better: bool
) -> list[float]:
    """Hypervolume of the front after each point, in the order given; infeasible points leave it as it was.

    Args:
        points: Of one rung; others raise ``ValueError``.
        reference: (score, cost), as for ``ParetoFront.hypervolume``.
        higher_is_better: Direction of the score.
    """
    rungs = sorted({point.rung for point in points})
    if len(rungs) > 1:
        raise ValueError(f"points of rungs {rungs} are not comparable; give those of one rung")
    growing = GrowingFront(reference, higher_is_better=higher_is_better)
    return [growing.add(point) for point in points]
