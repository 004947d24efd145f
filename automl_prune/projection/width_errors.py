"""What narrowing a group costs in quality, by width: what greedy and knapsack weigh against what it saves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

WidthErrors = Mapping[str, NDArray[np.float64]]
"""By group, shape (width + 1,): the error at every width; 0 at the dense one, never growing with the width."""


def errors_of_scores(scores: Mapping[str, torch.Tensor]) -> dict[str, NDArray[np.float64]]:
    """The share of a group's scores that goes with the channels below the best k.

    With ``obs``, whose scores are how much each removal adds to the reconstruction error of the layers that read
    the group, that is the group's relative reconstruction error at width k, from 0 (dense) to 1 (nothing left): the
    sum over its layers, as a share of what removing everything costs. A group counts once, however many layers read
    it: simply added, the errors of all layers keep residual streams too wide.

    Args:
        scores: By group, shape (width,), at least 0, not all 0.
    """
    found = {}
    for group, values in scores.items():
        ascending = np.sort(values.double().numpy())
        lost = np.concatenate([np.cumsum(ascending)[::-1], [0.0]])  # all go, ..., none goes
        found[group] = lost / lost[0]
    return found


def errors_of_drops(
    drops: Mapping[str, Mapping[int, float]], widths: Mapping[str, int]
) -> dict[str, NDArray[np.float64]]:
    """Measured drops of the score, a group pruned alone, joined by straight lines.

    A drop below 0, or below that of a wider group, is noise: the curve stays where it was. Below the narrowest
    measured width it goes on as steeply as between the two narrowest.

    Args:
        drops: By group and width; a group without any has no error.
        widths: Dense widths.
    """
    return {group: _curve(drops.get(group, {}), width) for group, width in widths.items()}


def _curve(drops: Mapping[int, float], width: int) -> NDArray[np.float64]:
    kept = sorted((keep for keep in drops if keep < width), reverse=True)
    x = np.array([width, *kept], dtype=float)
    y = np.maximum.accumulate(np.array([0.0, *(drops[keep] for keep in kept)]))
    if x[-1] > 0 and len(x) > 1:
        slope = (y[-1] - y[-2]) / (x[-2] - x[-1])
        x, y = np.append(x, 0.0), np.append(y, y[-1] + slope * x[-1])
    return np.interp(np.arange(width + 1), x[::-1], y[::-1])
