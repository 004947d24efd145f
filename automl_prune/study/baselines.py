"""The points a search starts from, so that its result cannot be worse than theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from automl_prune.candidate import Candidate
from automl_prune.errors import StudyError
from automl_prune.study.codec import SEARCH
from automl_prune.study.record import Point


@dataclass(frozen=True, slots=True)
class Baseline:
    """A point to be evaluated before the search proposes any.

    Attributes:
        origin: What it is, e.g. ``"uniform l1"``; unique in a study, unless ``source`` is.
        point: Values of the space's parameters.
        candidate: What is evaluated where the space has no point that gives it; ``point`` is then one near it, and
            strategies are not shown the trial.
        source: Where a point comes from that an earlier search has found, unique in a study; its origin is then
            ``"search"`` and it is no baseline to be beaten.
    """

    origin: str
    point: Point
    candidate: Candidate | None = None
    source: str = ""

    @property
    def name(self) -> str:
        """What tells it apart in a study."""
        return self.source or self.origin

    def __post_init__(self) -> None:
        if self.origin == SEARCH and not self.source:
            raise StudyError(f"a baseline cannot be called {SEARCH!r}: that is what the strategy's points are called")


Propose: TypeAlias = Callable[[float], Candidate]
"""From the share of the budget to spend to a baseline's candidate."""


def at_several_costs(
    kinds: Mapping[str, Propose],
    point_near: Callable[[Candidate, float], Point],
    candidate_of: Callable[[Point], Candidate],
    *,
    lowest: float,
    levels: int = 3,
) -> tuple[Baseline, ...]:
    """Every kind of baseline at the budget, then at ever lower costs.

    Args:
        kinds: By name, e.g. ``"uniform l1"``.
        point_near: The point of a candidate made for a share of the budget, or one near it.
        candidate_of: The candidate of a point.
        lowest: Least share of the budget, in (0, 1].
        levels: How many shares, evenly spaced from 1 down to ``lowest``.

    Returns:
        All kinds at the budget first, because those must be beaten; a candidate that an earlier one has is left out.
    """
    shares = [1 - (1 - lowest) * level / max(levels - 1, 1) for level in range(levels)]
    # as many digits as names need to tell the shares apart
    digits = next(n for n in range(9) if n == 8 or len({f"{each:.{n}%}" for each in shares}) == len(set(shares)))
    found: dict[str, Baseline] = {}
    for share in shares:
        for kind, propose in kinds.items():
            candidate = propose(share)
            if candidate.digest not in found:
                origin = kind if share == 1 else f"{kind} at {share:.{digits}%} of the budget"
                point = point_near(candidate, share)
                own = None if candidate_of(point) == candidate else candidate
                found[candidate.digest] = Baseline(origin, point, own)
    return tuple(found.values())


def affordable(baselines: Sequence[Baseline], trials: int) -> tuple[Baseline, ...]:
    """The first of them, as many as leave at least half of the trials to the search."""
    return tuple(baselines[: trials // 2])
