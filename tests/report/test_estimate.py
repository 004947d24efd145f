from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from automl_prune.report.estimate import Estimate, Variance, t_quantile
from automl_prune.tasks.base import Score


@pytest.mark.parametrize("degrees", [1, 1.3, 2, 4.7, 30, 1e4, 1e7, math.inf])
@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
def test_quantile_equals_scipy(degrees: float, level: float) -> None:
    expected = scipy.stats.t.ppf((1 + level) / 2, degrees)
    assert t_quantile(degrees, level) == pytest.approx(expected, rel=2e-5)


def test_seeds_divide_their_own_variance_only() -> None:
    scores = [Score(value, 1000, 0.01) for value in (0.90, 0.92, 0.94)]
    estimate = Estimate.of(scores)
    assert estimate.value == pytest.approx(0.92)
    assert estimate.std == pytest.approx(0.02)
    assert estimate.standard_error == pytest.approx(math.sqrt(0.02**2 / 3 + 0.01**2))


def test_interval_of_seeds_alone_is_students() -> None:
    values = [1.0, 1.5, 1.8, 2.6]
    estimate = Estimate.of([Score(value, 10, None) for value in values])
    expected = scipy.stats.t.interval(0.95, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert estimate.interval == pytest.approx(expected, rel=1e-5)
    assert estimate.sources == ("seeds",)


def test_difference_of_seeds_is_welchs() -> None:
    ours, theirs = [1.0, 1.5, 1.8, 2.6], [0.2, 0.4, 0.3]
    a, b = (Estimate.of([Score(value, 10, None) for value in values]) for values in (ours, theirs))
    expected = scipy.stats.ttest_ind(ours, theirs, equal_var=False)
    difference = a.minus(b)
    assert difference.degrees == pytest.approx(expected.df)
    assert difference.interval == pytest.approx(tuple(expected.confidence_interval()), rel=1e-5)


def test_coverage_is_as_stated() -> None:
    """Draw test sets and seeds many times: intervals must hold the truth in about 95 of 100 cases, and not less."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        common = rng.normal(0, 0.01)
        values = 0.9 + common + rng.normal(0, 0.01, size=3)
        interval = Estimate.of([Score(float(value), 900, 0.01) for value in values]).interval
        assert interval is not None
        hits += interval[0] <= 0.9 <= interval[1]
    assert 0.93 <= hits / 400 <= 1.0


def test_a_difference_among_many_is_wrong_in_one_of_twenty_at_most() -> None:
    """Ten differences that are none, a thousand times: how often any of them seems one."""
    random = np.random.default_rng(0)
    several = random.normal(0, 0.01, (1000, 10))
    variance = (Variance("data", 0.01**2, math.inf),)
    wrong = {
        among: sum(any(Estimate(v, 1, None, variance).differs(among) for v in row) for row in several.tolist()) / 1000
        for among in (1, 10)
    }
    assert wrong[1] > 0.3
    assert 0.02 < wrong[10] < 0.07


def test_one_seed_leaves_the_data() -> None:
    estimate = Estimate.of([Score.of_proportion(90, 100)])
    assert (estimate.std, estimate.sources, estimate.degrees) == (None, ("data",), math.inf)
    assert estimate.margin == pytest.approx(1.959964 * 0.03, rel=1e-5)


def test_nothing_known_gives_no_interval() -> None:
    estimate = Estimate.of([Score(0.5, 10, None)])
    assert (estimate.standard_error, estimate.margin, estimate.interval) == (None, None, None)
    assert estimate.minus(Estimate.of([Score(0.4, 10, None)])).interval is None
    with pytest.raises(ValueError, match="at least one"):
        Estimate.of([])


def test_identical_seeds_do_not_divide_by_zero() -> None:
    estimate = Estimate.of([Score(1.0, 10, 0.0)] * 3)
    assert estimate.interval == (1.0, 1.0)
    assert Estimate(0.0, 1, None, (Variance("seeds", 0.0, 2),)).degrees == math.inf


def _drawn(rng: np.random.Generator, difficulty: np.ndarray, skill: float, seeds: int) -> list[Score]:
    """Runs of one model on common samples: each has its own luck, and easy samples are easy for all."""
    own = skill + rng.normal(0, 0.003, size=seeds)
    return [Score.of_hits(torch.from_numpy(rng.random(len(difficulty)) < difficulty + each)) for each in own]


def test_paired_differences_cover_what_is_true_and_are_narrower() -> None:
    rng, covered, paired_widths, widths = np.random.default_rng(1), 0, [], []
    for _ in range(300):
        difficulty = np.where(rng.random(2000) < 0.85, 0.97, 0.3)
        ours = Estimate.of(_drawn(rng, difficulty, 0.01, 3))
        theirs = Estimate.of(_drawn(rng, difficulty, 0.0, 3))
        gain = ours.minus(theirs)
        assert gain.paired
        assert gain.interval is not None
        covered += gain.interval[0] <= 0.01 <= gain.interval[1]
        blind = [Estimate(e.value, e.seeds, e.std, e.variances) for e in (ours, theirs)]
        apart = blind[0].minus(blind[1])
        assert not apart.paired
        assert apart.value == gain.value
        paired_widths.append(gain.margin or 0)
        widths.append(apart.margin or 0)
    assert covered / 300 >= 0.93
    assert np.mean(paired_widths) < 0.8 * np.mean(widths)


def test_a_difference_of_one_run_each_is_that_of_matched_proportions() -> None:
    right, other = torch.arange(500) < 450, torch.arange(500) >= 60
    ours, theirs = Score.of_hits(right), Score.of_hits(other)
    gain = Estimate.of([ours]).minus(Estimate.of([theirs]))
    error = ours.error_against(theirs)
    assert error is not None
    assert gain.standard_error == pytest.approx(error)
    assert gain.sources == ("data",)


def test_scores_of_other_samples_are_taken_as_independent() -> None:
    ours = Estimate.of([Score.of_hits(torch.arange(500) < 450)])
    theirs = Estimate.of([Score.of_hits(torch.arange(400) < 300)])
    gain = ours.minus(theirs)
    assert not gain.paired
    assert gain.standard_error == pytest.approx(math.hypot(ours.standard_error or 0, theirs.standard_error or 0))
    assert Estimate.of([Score.of_hits(torch.arange(500) < 450), Score(0.9, 500, 0.01)]).right() is None
