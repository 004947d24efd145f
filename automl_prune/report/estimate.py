"""How sure a score is: seeds and the finite data behind it, and intervals for scores and their differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from automl_prune.tasks.base import Score

LEVEL = 0.95
"""Coverage of every interval the report shows."""


@dataclass(frozen=True, slots=True)
class Variance:
    """One independent part of an estimate's variance.

    Attributes:
        source: ``"seeds"`` (training again gives another model) or ``"data"`` (another test set, another score).
        value: Variance of the estimate, in squared units of the score.
        degrees: Degrees of freedom it was estimated with; infinite for the sampling of the data.
    """

    source: str
    value: float
    degrees: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean score and what is known of its error.

    The seeds share one test set: averaging over n of them divides the variance between seeds by n, but leaves the
    variance from sampling that test set whole. The two parts are kept apart and added.

    Attributes:
        value: Mean over the seeds.
        seeds: How many.
        std: Sample standard deviation over the seeds; None with one seed.
        variances: Independent parts of the variance of ``value``; empty when nothing is known.
    """

    value: float
    seeds: int
    std: float | None
    variances: tuple[Variance, ...]

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Estimate:
        """The estimate from scores of one model on one split, one score per seed, at least one."""
        if not scores:
            raise ValueError("an estimate needs at least one score")
        values = [score.value for score in scores]
        variances: list[Variance] = []
        std = statistics.stdev(values) if len(values) > 1 else None
        if std is not None:
            variances.append(Variance("seeds", std**2 / len(values), len(values) - 1))
        errors = [score.standard_error for score in scores if score.standard_error is not None]
        if len(errors) == len(scores):
            variances.append(Variance("data", statistics.fmean(error**2 for error in errors), math.inf))
        return cls(statistics.fmean(values), len(values), std, tuple(variances))

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two estimates, taken as independent.

        Scores on the same images err together, so this interval is rather too wide than too narrow.
        """
        variances = (*self.variances, *other.variances)
        return Estimate(self.value - other.value, min(self.seeds, other.seeds), None, variances)

    @property
    def sources(self) -> tuple[str, ...]:
        """What the interval covers, without repetition: of ``"seeds"`` and ``"data"``."""
        return tuple(sorted({variance.source for variance in self.variances}))

    @property
    def standard_error(self) -> float | None:
        """Standard error of ``value``, all parts combined; None when nothing is known."""
        if not self.variances:
            return None
        return math.sqrt(sum(variance.value for variance in self.variances))

    @property
    def margin(self) -> float | None:
        """Half the width of the 95 % interval (Student's t); None when nothing is known."""
        error = self.standard_error
        return None if error is None else t_quantile(self.degrees) * error

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval; None when nothing is known."""
        margin = self.margin
        return None if margin is None else (self.value - margin, self.value + margin)

    @property
    def degrees(self) -> float:
        """Effective degrees of freedom of the combined variance (Welch 1947, Satterthwaite 1946)."""
        total = sum(variance.value for variance in self.variances)
        spread = sum(variance.value**2 / variance.degrees for variance in self.variances)
        return total**2 / spread if spread > 0 else math.inf


def t_quantile(degrees: float, level: float = LEVEL) -> float:
    """The value that |Student's t| stays under with probability ``level``, to about five digits.

    Args:
        degrees: Degrees of freedom, at least 1; infinite for the normal distribution.
        level: Two-sided coverage, in (0, 1).

    With x = sqrt(degrees) tan(u) the density becomes cos(u)^(degrees - 1) on a finite range, which is smooth enough
    for the trapezoidal rule.
    """
    if degrees > 1e6:
        return statistics.NormalDist().inv_cdf((1 + level) / 2)
    angles = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(angles) ** (degrees - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(degrees) * math.tan(float(np.interp(level * area[-1], area, angles)))
