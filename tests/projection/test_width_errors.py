"""Errors by width, by hand."""

from __future__ import annotations

import pytest
import torch

from automl_prune.projection.width_errors import errors_of_drops, errors_of_scores


def test_errors_of_scores_are_the_share_of_what_goes() -> None:
    found = errors_of_scores({"a": torch.tensor([4.0, 1.0, 5.0]), "b": torch.tensor([0.3])})
    assert found["a"].tolist() == [1.0, 0.5, 0.1, 0.0]
    assert found["b"].tolist() == [1.0, 0.0]


def test_errors_of_drops_join_measurements_by_lines() -> None:
    found = errors_of_drops({"a": {8: -0.01, 4: 0.1, 2: 0.2}}, {"a": 10, "b": 2})
    assert found["a"].tolist() == pytest.approx([0.3, 0.25, 0.2, 0.15, 0.1, 0.075, 0.05, 0.025, 0.0, 0.0, 0.0])
    assert found["b"].tolist() == [0, 0, 0]


def test_a_drop_below_that_of_a_wider_group_is_noise() -> None:
    assert errors_of_drops({"a": {3: 0.2, 2: 0.1, 1: 0.4}}, {"a": 4})["a"].tolist() == pytest.approx(
        [0.6, 0.4, 0.2, 0.2, 0.0]
    )
