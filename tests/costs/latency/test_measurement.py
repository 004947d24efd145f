"""What follows from raw samples: ratios, their interval against simulation, noise, and the way to JSON and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from automl_prune.costs.latency import Fingerprint, LatencyMeasurement
from automl_prune.costs.latency.measurement import median_interval, repeat_interval

HERE = Fingerprint("onnxruntime 1.0", "CPUExecutionProvider", "a processor", 2, 1, 1, "wall time")


def _measurement(ratios: list[float], dense: float = 2.0, reference: float = 1.0) -> LatencyMeasurement:
    """Blocks of three calls whose fastest ones stand in the given ratios."""
    callss = tuple((9 * dense, ratio * dense, 5 * dense) for ratio in ratios)
    return LatencyMeasurement(callss, ((dense, 7 * dense, dense),) * len(ratios), reference, HERE)


def test_the_ratio_is_the_median_over_pairs_of_their_fastest_calls_and_scales_the_reference() -> None:
    found = _measurement([0.5, 0.5, 0.4, 0.6, 0.5, 0.7, 0.5], reference=0.004)
    assert found.ratio == 0.5
    assert found.seconds == 0.002
    assert found.interval == pytest.approx(
        (0.5 - 0.1 * 2**0.5, 0.5 + 0.2 * 2**0.5)
    )  # the ends 0.4 and 0.7, farther out


def test_drift_that_slows_both_models_leaves_the_ratios_alone() -> None:
    steady = _measurement([0.5] * 10)
    slower = LatencyMeasurement(
        tuple(tuple(s * (1 + i) for s in calls) for i, calls in enumerate(steady.samples)),
        tuple(tuple(s * (1 + i) for s in calls) for i, calls in enumerate(steady.dense_samples)),
        steady.reference,
        HERE,
    )
    assert slower.ratios == pytest.approx(steady.ratios)
    assert slower.noisy is None


def test_a_wide_interval_is_called_noisy_and_says_how_wide() -> None:
    assert _measurement([0.49, 0.5, 0.51] * 4).noisy is None
    reason = _measurement([0.4, 0.5, 0.6] * 4).noisy
    assert reason is not None
    assert "±28%" in reason


@pytest.mark.parametrize("count", [6, 7, 20, 31])
def test_the_interval_covers_the_median_of_a_skewed_distribution_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(count)
    hits = 0
    for _ in range(2000):
        low, high = median_interval(tuple(generator.exponential(size=count)))
        hits += low <= np.log(2) <= high
    assert hits / 2000 >= 0.94  # at least 95 %, up to the simulation's own error


@pytest.mark.parametrize("count", [6, 12])
def test_a_repeated_measurement_lies_in_the_interval_as_often_as_it_says(count: int) -> None:
    generator = np.random.default_rng(count)
    hits = 0
    for _ in range(2000):
        low, high = repeat_interval(tuple(generator.normal(1, 0.01, size=count)))
        hits += bool(low <= np.median(generator.normal(1, 0.01, size=count)) <= high)
    assert hits / 2000 >= 0.94


def test_too_few_rounds_have_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 6"):
        median_interval((1.0,) * 5)


def test_json_round_trip() -> None:
    found = _measurement([0.5, 0.4, 0.6, 0.5, 0.5, 0.5])
    assert LatencyMeasurement.from_json(json.loads(json.dumps(found.to_json()))) == found
    with pytest.raises(ValueError, match="reference"):
        LatencyMeasurement.from_json({"samples": [], "dense_samples": []})


def test_rounds_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="equally many"):
        LatencyMeasurement(((1.0,),), (), 1.0, HERE)


def test_fingerprints_differ_by_name_and_value() -> None:
    other = Fingerprint("onnxruntime 1.0", "CPUExecutionProvider", "a processor", 2, 2, 1, "wall time")
    assert HERE.differences(HERE) == ()
    assert HERE.differences(other) == ("threads: 1, not 2",)
    assert HERE.digest != other.digest
    assert Fingerprint.from_json(json.loads(json.dumps(HERE.to_json()))) == HERE
    with pytest.raises(ValueError, match="fingerprint"):
        Fingerprint.from_json({"threads": 1})
