"""How sure a score is: seeds and the finite data behind it, and intervals for scores and their differences."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from automl_prune.tasks.base import Score, paired_variance

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
    variance from sampling that test set whole. The two parts are kept apart and added. What seeds differ in on single
    samples is in both, so intervals of few seeds are rather too wide than too narrow.

    Attributes:
        value: Mean over the seeds.
        seeds: How many.
        std: Sample standard deviation over the seeds; None with one seed.
        variances: Independent parts of the variance of ``value``; empty when nothing is known.
        scores: What it is the mean of; empty for a difference.
        paired: Of a difference, whether it was taken sample by sample.
    """

    value: float
    seeds: int
    std: float | None
    variances: tuple[Variance, ...]
    scores: tuple[Score, ...] = field(default=(), compare=False, repr=False)
    paired: bool = False

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
        return cls(statistics.fmean(values), len(values), std, tuple(variances), tuple(scores))

    def minus(self, other: Estimate) -> Estimate:
        """The difference of two estimates on one split.

        Scores on the same samples err together. Where both know which were right, the sampling of the data enters by
        what they differ in (``paired_variance``); else they are taken as independent, and the interval is too wide.
        Training runs are always taken as independent.
        """
        variances = [*self.variances, *other.variances]
        ours, theirs = self.right(), other.right()  # decoded here alone: a report has thousands of estimates
        paired = ours is not None and theirs is not None and len(ours) == len(theirs)
        if paired:
            assert ours is not None
            assert theirs is not None
            variances = [variance for variance in variances if variance.source != "data"]
            variances.append(Variance("data", paired_variance(ours, theirs), math.inf))
        seeds = min(self.seeds, other.seeds)
        return Estimate(self.value - other.value, seeds, None, tuple(variances), paired=paired)

    def right(self) -> NDArray[np.float64] | None:
        """The fraction of the scores that are right on each sample, shape (samples,); None where one cannot say."""
        known = [right for score in self.scores if (right := score.right) is not None]
        if not known or len(known) < len(self.scores) or len({len(right) for right in known}) > 1:
            return None
        mean: NDArray[np.float64] = np.stack(known).mean(axis=0)
        return mean

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

    def differs(self, among: int = 1) -> bool:
        """Whether a difference is not zero, among so many that are looked at (Bonferroni: wrong of any at most 5 %)."""
        error = self.standard_error
        return error is not None and abs(self.value) > t_quantile(self.degrees, 1 - (1 - LEVEL) / among) * error

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
