"""One measured latency: the raw samples, and what follows from them.

The model and the dense one are loaded and run in turns in one process, round after round, so what slows the machine
down slows both. The ratio within a round is what is measured; seconds are that ratio times a reference, the dense
model's seconds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import binom

from automl_prune.costs.base import Cost
from automl_prune.costs.latency.fingerprint import Fingerprint

NOISY = 0.05
"""Half-width of the interval, relative to the ratio, from which on a measurement is called noisy."""

LEAST_ROUNDS = 6
"""Fewer have no 95 % interval of the median."""

Rounds = tuple[tuple[float, ...], ...]
"""Seconds of every call, by round."""


@dataclass(frozen=True, slots=True)
class LatencyMeasurement:
    """Latency of one model beside the dense model's. Immutable; ``to_json`` and ``from_json`` are inverse.

    Attributes:
        samples: Of the model, at least ``LEAST_ROUNDS`` rounds; every round loads it anew, because where it comes to
            lie in memory changes its speed by about a per cent.
        dense_samples: Of the dense model; round i was timed in turns with round i of the model.
        reference: Seconds per call of the dense model that ``seconds`` is meant for; one number per study, so that
            two models of it compare by their ratios whatever the machine did between them.
        fingerprint: What it was measured on.
    """

    samples: Rounds
    dense_samples: Rounds
    reference: float
    fingerprint: Fingerprint

    def __post_init__(self) -> None:
        counts = {len(self.samples), len(self.dense_samples)}
        if len(counts) > 1 or min(counts) < LEAST_ROUNDS or not all((*self.samples, *self.dense_samples)):
            raise ValueError(f"a latency needs equally many rounds of both models, at least {LEAST_ROUNDS}, none empty")

    @property
    def ratios(self) -> tuple[float, ...]:
        """Model to dense by round; in a round the fastest call counts, since whatever disturbs one lengthens it."""
        return ratios(self.samples, self.dense_samples)

    @property
    def ratio(self) -> float:
        """Latency as a fraction of the dense model's: the median over the rounds."""
        return median(self.ratios)

    @property
    def interval(self) -> tuple[float, float]:
        """In which the ratio of a repeated measurement lies, with a probability of 95 %."""
        return repeat_interval(self.ratios)

    @property
    def seconds(self) -> float:
        """Seconds per call: ``ratio`` times ``reference``."""
        return self.ratio * self.reference

    @property
    def noisy(self) -> str | None:
        """Why the measurement is not to be relied on; None when it is."""
        spread = half_width(self.ratios)
        if spread <= NOISY:
            return None
        return (
            f"a repetition may differ by ±{spread:.0%} after {len(self.samples)} rounds; stop what else runs on this "
            "machine, or allow more time"
        )

    def summary(self) -> dict[str, Any]:
        """What a reader wants to know, JSON-ready: no samples, but everything that follows from them."""
        return {
            "seconds": self.seconds,
            "dense_seconds": self.reference,
            "ratio": self.ratio,
            "interval": list(self.interval),
            "rounds": len(self.samples),
            "noisy": self.noisy,
            "fingerprint": self.fingerprint.to_json(),
        }

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "samples": [list(calls) for calls in self.samples],
            "dense_samples": [list(calls) for calls in self.dense_samples],
            "reference": self.reference,
            "fingerprint": self.fingerprint.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LatencyMeasurement:
        """Rebuild a measurement; missing or malformed entries raise ``ValueError``."""
        try:
            return cls(
                samples=tuple(tuple(calls) for calls in value["samples"]),
                dense_samples=tuple(tuple(calls) for calls in value["dense_samples"]),
                reference=value["reference"],
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a latency measurement: {error!r}") from error


def cost_of(summary: Mapping[str, Any]) -> Cost:
    """The latency of a ``summary`` as a cost."""
    dense = summary["dense_seconds"]
    low, high = (end * dense for end in summary["interval"])
    return Cost("latency", summary["seconds"], dense, (low, high), summary["noisy"])


OTHER = "other"
"""Stands for all that is no layer, among the seconds of layers."""


def ratios(samples: Sequence[Sequence[float]], dense: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Fastest call of the model to the fastest of the dense model, by round."""
    return tuple(min(mine) / min(its) for mine, its in zip(samples, dense, strict=True))


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median by order statistics, whatever the distribution.

    Args:
        values: At least ``LEAST_ROUNDS``, in any order.

    Returns:
        Two of the values: those at the ranks between which the median lies with a probability of at least 95 %
        (David and Nagaraja, "Order Statistics", section 7.1).
    """
    if len(values) < LEAST_ROUNDS:
        raise ValueError(f"{len(values)} values have no 95 % interval; at least {LEAST_ROUNDS} are needed")
    rank = int(binom.ppf(0.025, len(values), 0.5)) - 1
    ordered = np.sort(values)
    return float(ordered[rank]), float(ordered[len(values) - 1 - rank])


def repeat_interval(values: Sequence[float]) -> tuple[float, float]:
    """Where the median of a second sample like this one lies, with a probability of 95 %.

    The second median errs as the first does, so their difference has twice the variance: the ends of
    ``median_interval`` move away from the median by a factor of the square root of 2.
    """
    middle, (low, high) = median(values), median_interval(values)
    return middle - (middle - low) * math.sqrt(2), middle + (high - middle) * math.sqrt(2)


def half_width(values: Sequence[float]) -> float:
    """Half the ``repeat_interval``, relative to the median."""
    low, high = repeat_interval(values)
    return (high - low) / 2 / median(values)
