"""One measured latency: the raw samples, and what follows from them.

The model and the dense one run in turns in one process, so what slows the machine down slows both. The ratio of
neighbouring blocks is what is measured; seconds are that ratio times a reference, the dense model's seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import binom

from automl_prune.costs.latency.fingerprint import Fingerprint

NOISY = 0.05
"""Half-width of the interval, relative to the ratio, from which on a measurement is called noisy."""

LEAST_BLOCKS = 6
"""Fewer pairs of blocks have no 95 % interval of the median."""

Blocks = tuple[tuple[float, ...], ...]
"""Seconds per call, by block of calls."""


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """Latency of one model beside the dense model's. Immutable; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        blocks: Samples of the model.
        dense_blocks: Samples of the dense model; block i was timed right before or after block i of the model.
        reference: Seconds per call of the dense model that ``seconds`` is meant for; one number per study, so that
            two models of it compare by their ratios whatever the machine did between them.
        fingerprint: What it was measured on.
    """

    blocks: Blocks
    dense_blocks: Blocks
    reference: float
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.dense_blocks) or not all((*self.blocks, *self.dense_blocks)):
            raise ValueError("a latency needs equally many blocks of both models, and no empty one")

    @property
    def ratios(self) -> tuple[float, ...]:
        """Model to dense, one per pair of blocks; a block counts by its fastest call, since noise only adds."""
        return tuple(min(mine) / min(dense) for mine, dense in zip(self.blocks, self.dense_blocks, strict=True))

    @property
    def ratio(self) -> float:
        """Latency as a fraction of the dense model's: the median over the pairs."""
        return median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of ``ratio``."""
        return median_interval(self.ratios)

    @property
    def seconds(self) -> float:
        """Seconds per call: ``ratio`` times ``reference``."""
        return self.ratio * self.reference

    @property
    def noisy(self) -> str | None:
        """Why the measurement is not to be relied on; None when it is."""
        low, high = self.interval
        spread = (high - low) / 2 / self.ratio
        if spread <= NOISY:
            return None
        return (
            f"its 95 % interval is ±{spread:.0%} after {len(self.blocks)} pairs of blocks; stop what else runs on "
            "this machine, or allow more time"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "blocks": [list(block) for block in self.blocks],
            "dense_blocks": [list(block) for block in self.dense_blocks],
            "reference": self.reference,
            "fingerprint": self.fingerprint.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LatencyMeasurement:
        """Rebuild a measurement; missing or malformed entries raise ``ValueError``."""
        try:
            return cls(
                blocks=tuple(tuple(block) for block in value["blocks"]),
                dense_blocks=tuple(tuple(block) for block in value["dense_blocks"]),
                reference=value["reference"],
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a latency measurement: {error!r}") from error


Measure = Callable[[Mapping[str, int]], LatencyMeasurement]
"""Measures the model of some group widths."""

Profile = Callable[[Mapping[str, int]], Mapping[str, float]]
"""Seconds of every layer of the model of some group widths, by the layer's parameter; ``OTHER`` is all the rest."""

OTHER = "other"


def median_interval(values: tuple[float, ...]) -> tuple[float, float]:
    """The 95 % interval of the median by order statistics, whatever the distribution.

    Args:
        values: At least ``LEAST_BLOCKS``, in any order.

    Returns:
        Two of the values: those at the ranks between which the median lies with a probability of at least 95 %
        (David and Nagaraja, "Order Statistics", section 7.1).
    """
    if len(values) < LEAST_BLOCKS:
        raise ValueError(f"{len(values)} values have no 95 % interval; at least {LEAST_BLOCKS} are needed")
    rank = int(binom.ppf(0.025, len(values), 0.5)) - 1
    ordered = np.sort(values)
    return float(ordered[rank]), float(ordered[len(values) - 1 - rank])
