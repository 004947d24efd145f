"""When a search stops early: the front has not grown for a while."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from automl_prune.front import FrontPoint, GrowingFront, reference_point
from automl_prune.study.chains import Chain
from automl_prune.study.codec import ORIGIN, SEARCH, SOURCE, violations_of
from automl_prune.study.record import Stop, StudyContext

LEAST_GROWTH = 1e-3
"""Relative growth of the front's area below which nothing has happened."""


class Stagnation:
    """Watches the front at rung 0, where all trials compare, and says when it has stopped growing.

    The rule: over the last ``patience`` finished trials of the search the area that the front dominates (from the
    reference point that the dense model gives, ``front.reference_point``) has grown by less than 0.1 %. While that
    area is empty, nothing stops. It is decided at every point of the study in order, on the points before it, all of
    which are finished; so all workers and every resume come to the same stop (rule 1 of ``worker.py``), and what is
    finished beyond it by others at that moment does not count.

    Args:
        patience: Finished trials of the search without growth; None never stops.
        context: Of the study.

    Attributes:
        stop: Where the search stopped; None while it goes on.
    """

    def __init__(self, patience: int | None, context: StudyContext) -> None:
        self._patience = patience
        higher, dense = context.metric.higher_is_better, context.dense_costs[context.cost]
        reference = reference_point(context.dense_val.value, dense, higher_is_better=higher)
        self._front = GrowingFront(reference, higher_is_better=higher)
        self._before: list[float] = []  # the area before every trial of the search
        self._seen = 0
        self.stop: Stop | None = None

    def look(self, chains: Sequence[Chain]) -> None:
        """Take up what has been finished since, up to the first point that is not."""
        for chain in islice(chains, self._seen, None):
            if self._patience is None or self.stop is not None or not chain.finished:
                return
            self._seen += 1
            self._take(chain, self._patience)

    def _take(self, chain: Chain, patience: int) -> None:
        trial = chain.current
        searched = trial.user_attrs.get(ORIGIN, SEARCH) == SEARCH and SOURCE not in trial.user_attrs  # not given
        if searched:
            self._before.append(self._front.area)
        if chain.state == "complete":
            score, cost = trial.values
            feasible = all(excess <= 0 for excess in violations_of(trial).values())
            self._front.add(FrontPoint(chain.index, score, cost, feasible, 0))
        if searched and len(self._before) >= patience:
            area, earlier = self._front.area, self._before[-patience]
            if area - earlier < LEAST_GROWTH * earlier:
                self.stop = Stop(chain.index + 1, patience, area / earlier - 1)
