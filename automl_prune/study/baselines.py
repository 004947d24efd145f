"""The points a search starts from, so that its result cannot be worse than theirs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from automl_prune.errors import StudyError
from automl_prune.study.codec import SEARCH
from automl_prune.study.record import Point


@dataclass(frozen=True, slots=True)
class Baseline:
    """A point to be evaluated before the search proposes any.

    Attributes:
        origin: What it is, e.g. ``"uniform l1"``; unique in a study.
        point: Values of the space's parameters.
    """

    origin: str
    point: Point

    def __post_init__(self) -> None:
        if self.origin == SEARCH:
            raise StudyError(f"a baseline cannot be called {SEARCH!r}: that is what the strategy's points are called")


def uniform_baselines(
    criteria: Sequence[str],
    uniform_point: Callable[[str, float], Point],
    *,
    lowest: float,
    levels: int = 3,
) -> tuple[Baseline, ...]:
    """Uniform pruning by every criterion at the budget, then at ever lower costs.

    Args:
        criteria: Registered names.
        uniform_point: (criterion, share of the budget to spend) -> its point in the space.
        lowest: Least share of the budget, in (0, 1].
        levels: How many shares, evenly spaced from 1 down to ``lowest``.

    Returns:
        All criteria at the budget first, because those must be beaten; a point that equals an earlier one is
        left out.
    """
    shares = [1 - (1 - lowest) * level / max(levels - 1, 1) for level in range(levels)]
    found: dict[str, Baseline] = {}
    points: list[Point] = []
    for share in shares:
        for criterion in criteria:
            origin = f"uniform {criterion}" if share == 1 else f"uniform {criterion} at {share:.0%} of the budget"
            point = uniform_point(criterion, share)
            if point not in points:
                points.append(point)
                found.setdefault(origin, Baseline(origin, point))
    return tuple(found.values())


def affordable(baselines: Sequence[Baseline], trials: int) -> tuple[Baseline, ...]:
    """The first of them, as many as leave at least half of the trials to the search."""
    return tuple(baselines[: trials // 2])
