"""Which widths to measure to fit a predictor: narrow and wide, alike and mixed, rounded and not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MULTIPLES = (1, 4, 8, 16)


def diverse_widths(lowest: Sequence[int], highest: Sequence[int], count: int, seed: int) -> list[tuple[int, ...]]:
    """Different vectors of widths between two, the widest first.

    Of every four vectors one keeps the same fraction of every group, one varies around a common fraction, one draws
    every group alone, and one narrows a single group; in half of them each group is rounded to a multiple of 4, 8 or
    16, so that both ends of most layers are multiples.

    Args:
        lowest: Least width of every group.
        highest: Dense widths.
        count: How many, at least 1; fewer where there are not so many different ones.
        seed: Of the draws.

    Returns:
        Vectors of shape (groups,).
    """
    random = np.random.default_rng(seed)
    low, high = np.asarray(lowest, dtype=np.int64), np.asarray(highest, dtype=np.int64)
    found = {tuple(high.tolist()): None}
    for attempt in range(50 * count):
        if len(found) >= count:
            break
        wanted = _draw(attempt % 4, low, high, random)
        multiple = int(random.choice(MULTIPLES[1:])) if attempt // 4 % 2 else 1
        rounded = np.clip(np.maximum(1, (wanted / multiple).round()) * multiple, low, high).astype(np.int64)
        found.setdefault(tuple(rounded.tolist()))
    return list(found)


def _draw(
    kind: int, low: NDArray[np.int64], high: NDArray[np.int64], random: np.random.Generator
) -> NDArray[np.float64]:
    fraction = random.uniform(0.1, 1.0)
    if kind == 0:
        return np.asarray(fraction * high, dtype=np.float64)
    if kind == 1:
        return np.asarray(fraction * high * np.exp(random.uniform(-0.4, 0.4, size=len(high))))
    if kind == 2:
        return random.uniform(low, high)
    wanted = high.astype(np.float64)
    wanted[random.integers(len(high))] *= fraction
    return wanted
