"""Scores that know which samples were right, and how sure a difference on the same samples is."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.tasks import base
from automl_prune.tasks.base import Score, paired_variance


@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_hits_are_those_given_after_storing_too(right: list[bool]) -> None:
    score = Score(**asdict(Score.of_hits(torch.tensor(right))))
    assert score.right is not None
    assert score.right.tolist() == [float(each) for each in right]
    plain = Score.of_proportion(sum(right), len(right))
    assert (score.value, score.samples, score.standard_error) == (plain.value, plain.samples, plain.standard_error)
    assert score.figures() == plain.figures() == {k: v for k, v in asdict(score).items() if k != "hits"}


def test_hits_of_other_samples_are_refused() -> None:
    hits = Score.of_hits(torch.ones(100, dtype=torch.bool)).hits
    with pytest.raises(ValueError, match="300 samples comes with the hits of other ones"):
        Score(0.5, 300, 0.01, hits)
    with pytest.raises(ValueError, match="base64"):
        Score(0.5, 100, 0.01, "!" + hits[1:])


def test_large_splits_keep_no_hits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PAIRED", 99)
    score = Score.of_hits(torch.arange(100) < 90)
    assert (score.value, score.hits, score.right) == (0.9, "", None)


def test_paired_variance_is_agresti_and_mins() -> None:
    only_ours, only_theirs, samples = 31, 17, 400
    ours = np.r_[np.ones(only_ours), np.zeros(only_theirs), np.ones(300), np.zeros(samples - 348)]
    theirs = np.r_[np.zeros(only_ours), np.ones(only_theirs), np.ones(300), np.zeros(samples - 348)]
    b, c, n = only_ours + 0.5, only_theirs + 0.5, samples + 2
    expected = (b / n + c / n - (b / n - c / n) ** 2) / n
    assert paired_variance(ours, theirs) == pytest.approx(expected, rel=1e-12)
    assert paired_variance(ours, ours) > 0


def test_paired_variance_is_what_drawing_samples_again_gives() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.beta(5, 1, 2000), rng.beta(4, 1, 2000)  # fractions of several seeds
    drawn = rng.integers(0, 2000, size=(4000, 2000))
    differences = (ours[drawn] - theirs[drawn]).mean(axis=1)
    assert paired_variance(ours, theirs) == pytest.approx(differences.var(), rel=0.1)


def test_error_of_a_difference_is_paired_where_both_know_their_hits() -> None:
    right = torch.arange(1000) < 900
    other = right.clone()
    other[:4] = False
    ours, theirs = Score.of_hits(right), Score.of_hits(other)
    apart = math.hypot(ours.standard_error or 0, theirs.standard_error or 0)
    assert ours.error_against(theirs) == theirs.error_against(ours)
    assert (ours.error_against(theirs) or 1) < apart / 4
    unknown = Score(0.9, 1000, ours.standard_error)
    assert ours.error_against(unknown) == pytest.approx(math.hypot(*[ours.standard_error or 0] * 2))
    fewer = Score.of_hits(right[100:])
    assert ours.error_against(fewer) == pytest.approx(math.hypot(ours.standard_error or 0, fewer.standard_error or 0))
    assert ours.error_against(Score(0.9, 1000)) is None
