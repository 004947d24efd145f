"""The widths every group may have, and the order in which groups are raised from one to the next."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Widths = NDArray[np.int64]
"""Shape (groups,)."""


class AllowedWidths:
    """The widths every group may have, by their place from 0, and the order in which a growing scale raises them.

    Args:
        by_group: Widths by group, ascending; the last is the dense width.

    Attributes:
        by_group: As given.
        group: The group of every raise to the next width, group after group, shape (raises,).
        steps: Widths before and after every raise, likewise.
    """

    def __init__(self, by_group: tuple[tuple[int, ...], ...]) -> None:
        self.by_group = by_group
        self._flat = np.array([width for widths in by_group for width in widths], dtype=np.int64)
        counts = np.array([len(widths) for widths in by_group], dtype=np.int64)
        self._first = np.cumsum(counts) - counts
        self.group = np.repeat(np.arange(len(by_group)), counts - 1)
        self.steps = tuple(
            np.array([pair[end] for widths in by_group for pair in pairwise(widths)], dtype=np.int64) for end in (0, 1)
        )
        # Rounding to the nearest allowed width raises a group where the wanted fraction passes the middle
        # between two.
        self._middle = np.array([(a + b) / 2 / widths[-1] for widths in by_group for a, b in pairwise(widths)])
        self.lowest: Widths = self.widths(np.zeros_like(counts))
        self.highest: Widths = self.widths(counts - 1)

    def widths(self, places: NDArray[np.int64]) -> Widths:
        """The widths at given places, both of shape (groups,)."""
        return np.asarray(self._flat[self._first + places])

    def raises(self, weights: NDArray[np.float64]) -> NDArray[np.int64]:
        """The group of every single raise, ordered by the scale at which ``scale * weight`` calls for it."""
        return self.ordered(self._middle / weights[self.group])

    def ordered(self, keys: NDArray[np.float64]) -> NDArray[np.int64]:
        """The group of every single raise, by ascending key, shape (raises,); the places of a group stay in order."""
        keys = keys.copy()
        for number in range(len(self._first)):
            mine = self.group == number
            keys[mine] = np.maximum.accumulate(keys[mine])
        return np.asarray(self.group[np.argsort(keys, kind="stable")])
