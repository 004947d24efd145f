"""The regression on channels: its terms by hand, and layers whose times follow it exactly."""

from __future__ import annotations

import numpy as np
import pytest

from automl_prune.costs.layer_regression import (
    NOT_PROFILED,
    Layer,
    LayerChannels,
    Sample,
    fit_regression,
    layer_terms,
)
from automl_prune.costs.polynomial import AxisLength
from automl_prune.costs.sampling import diverse_widths

IMAGE, A, B, CLASSES = AxisLength(3, {}), AxisLength(0, {"a": 1}), AxisLength(0, {"b": 2}), AxisLength(10, {})
LAYERS = (Layer("first", IMAGE, A, 64), Layer("middle", A, B, 64), Layer("last", B, CLASSES, 1))
DENSE = (32, 48)


def test_channels_follow_the_groups_and_ends_that_never_change_take_no_part_in_alignment() -> None:
    channels = LayerChannels(("a", "b"), LAYERS)
    read, made = channels.at(np.array([[8, 5], [7, 8]]))
    assert read.tolist() == [[3, 3], [8, 7], [10, 16]]
    assert made.tolist() == [[8, 7], [10, 16], [10, 10]]
    assert channels.aligned(read, made, 8).tolist() == [[True, False], [False, False], [False, True]]


def test_terms_are_channels_blocks_and_their_products() -> None:
    terms = layer_terms(np.array([9.0]), np.array([16.0]), 8)
    assert terms[:, 0].tolist() == [1, 9, 16, 144, 2 * 2, 2 * 16, 9 * 2]


def test_layers_that_follow_the_terms_are_predicted_exactly_and_a_slow_way_is_told_from_a_fast_one() -> None:
    channels = LayerChannels(("a", "b"), LAYERS)

    def seconds(widths: tuple[int, ...]) -> dict[str, float]:
        read, made = channels.at(np.array([widths]))
        slow = np.where(channels.aligned(read, made, 8), 1.0, 3.0)
        times = slow * (1e-6 + 2e-9 * read * made + 3e-9 * made)
        return dict(zip(channels.names, times[:, 0].tolist(), strict=True))

    def sample(widths: tuple[int, ...]) -> Sample:
        layers = seconds(widths)
        return Sample(widths, 1.5 * sum(layers.values()), layers)

    fitted = fit_regression(channels, [sample(widths) for widths in diverse_widths((1, 1), DENSE, 60, 0)])
    assert {fit.multiple for fit in fitted.fits} == {8}
    others = diverse_widths((1, 1), DENSE, 40, 1)
    predicted = fitted.predict(channels, np.array(others))
    assert predicted == pytest.approx([1.5 * sum(seconds(widths).values()) for widths in others], rel=0.01)


def test_a_layer_that_was_not_profiled_counts_to_the_rest() -> None:
    channels = LayerChannels(("a", "b"), LAYERS)
    samples = [
        Sample(widths, 1e-5 + 1e-9 * widths[0] * widths[1], {"first": 1e-6, "last": 1e-6})
        for widths in diverse_widths((1, 1), DENSE, 30, 0)
    ]
    fitted = fit_regression(channels, samples)
    assert fitted.fits[1] == NOT_PROFILED
    assert fitted.predict(channels, np.array([DENSE])) > 5e-6
