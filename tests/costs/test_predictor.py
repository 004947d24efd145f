"""The latency predictor on a made-up machine whose layers are faster at multiples of some widths."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from automl_prune.costs.layer_regression import Layer, Sample
from automl_prune.costs.polynomial import AxisLength
from automl_prune.costs.predictor import LatencyPredictor, PredictionError, load_predictor, save_predictor
from automl_prune.costs.sampling import diverse_widths

GROUPS = ("a", "b", "c", "d")
DENSE = (16, 32, 64, 64)
_AXES = [AxisLength(3, {}), *(AxisLength(0, {group: 1}) for group in GROUPS), AxisLength(10, {})]
LAYERS = tuple(
    Layer(f"{number}.weight", read, made, 1024 // 2**number) for number, (read, made) in enumerate(pairwise(_AXES))
)


class Machine:
    """A layer takes whole blocks of 16 when both its widths are multiples of 4, and 2.5 times as long otherwise."""

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self.noise = noise
        self.random = np.random.default_rng(seed)

    def layers(self, widths: tuple[int, ...]) -> dict[str, float]:
        at = dict(zip(GROUPS, widths, strict=True))
        found = {"other": 2e-5}
        for layer in LAYERS:
            read, made = layer.inputs.at(at), layer.outputs.at(at)
            ends = [end for end, axis in ((read, layer.inputs), (made, layer.outputs)) if axis.positions]
            fast = all(end % 4 == 0 for end in ends)
            work = np.ceil(read / 16) * np.ceil(made / 16) * 256 if fast else 2.5 * read * made
            found[layer.name] = 1e-6 + float(work) * 9 * layer.places * 1e-11
        return found

    def seconds(self, widths: tuple[int, ...]) -> float:
        return sum(self.layers(widths).values())

    def sample(self, widths: tuple[int, ...]) -> Sample:
        profile = {name: value * self._jitter() for name, value in self.layers(widths).items()}
        return Sample(widths, self.seconds(widths) * self._jitter(), profile)

    def _jitter(self) -> float:
        return float(np.exp(self.random.normal(0, self.noise)))


def predictor(machine: Machine, count: int = 48) -> LatencyPredictor:
    samples = [machine.sample(widths) for widths in diverse_widths([2] * 4, DENSE, count, seed=0)]
    return LatencyPredictor.fit(GROUPS, LAYERS, samples, dense=1e-3)


FRESH = diverse_widths([2] * 4, DENSE, 80, seed=7)[1:]


def test_unseen_widths_are_predicted_on_and_off_the_staircase() -> None:
    machine = Machine(noise=0.02)
    found = predictor(machine)
    error = PredictionError.of(found.evaluate_all(np.array(FRESH)), [machine.seconds(widths) for widths in FRESH])
    assert error.mape < 0.05
    assert error.spearman > 0.98
    on, off = found.at({"a": 16, "b": 16, "c": 32, "d": 32}), found.at({"a": 15, "b": 15, "c": 31, "d": 31})
    assert off > on, "fewer channels are slower"
    assert not found.monotone


def test_its_own_error_is_of_samples_it_had_not_seen() -> None:
    quiet, noisy = predictor(Machine(noise=0.001)).error, predictor(Machine(noise=0.3)).error
    assert quiet.samples == 12
    assert quiet.mape < 0.05 < noisy.mape
    assert "12 candidates" in quiet.describe()


def test_a_slow_profile_is_scaled_to_what_is_measured_end_to_end() -> None:
    machine = Machine()
    samples = [machine.sample(widths) for widths in diverse_widths([2] * 4, DENSE, 48, seed=0)]
    slow = [Sample(s.widths, s.seconds, {name: 3 * t for name, t in s.layers.items()}) for s in samples]
    found, expected = (LatencyPredictor.fit(GROUPS, LAYERS, some, dense=1e-3) for some in (slow, samples))
    assert found.evaluate_all(np.array(FRESH)) == pytest.approx(expected.evaluate_all(np.array(FRESH)), rel=1e-6)


def test_layers_without_a_profile_count_to_the_rest() -> None:
    machine = Machine()
    samples = [
        Sample(s.widths, s.seconds, {})
        for s in (machine.sample(widths) for widths in diverse_widths([2] * 4, DENSE, 60, seed=0))
    ]
    found = LatencyPredictor.fit(GROUPS, LAYERS, samples, dense=1e-3)
    error = PredictionError.of(found.evaluate_all(np.array(FRESH)), [machine.seconds(widths) for widths in FRESH])
    assert error.spearman > 0.8, "much worse than with profiles, still of use"


def test_many_vectors_give_what_each_gives() -> None:
    found = predictor(Machine())
    assert found.evaluate_all(np.array(FRESH)) == pytest.approx([found.evaluate(widths) for widths in FRESH])


def test_it_is_kept_for_one_model_on_one_machine(tmp_path: Path) -> None:
    found, path, identity = predictor(Machine(0.01)), tmp_path / "latency.json", {"model": "a", "fingerprint": "b"}
    assert load_predictor(path, identity) is None
    save_predictor(path, found, identity)
    again = load_predictor(path, identity)
    assert again == found
    assert again is not None
    assert again.evaluate_all(np.array(FRESH)).tolist() == found.evaluate_all(np.array(FRESH)).tolist()
    assert load_predictor(path, {**identity, "fingerprint": "c"}) is None, "another machine"
    whole = path.read_text()
    path.write_text(whole.replace('"scale": ', '"scale": 1', 1))
    assert path.read_text() != whole
    assert load_predictor(path, identity) is None, "another number"
    path.write_text(whole[:200])
    assert load_predictor(path, identity) is None, "damaged"
    path.write_text(json.dumps([1]))
    assert load_predictor(path, identity) is None, "something else"


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 12 samples, got 5"):
        predictor(Machine(), count=5)


def test_widths_to_measure_are_diverse_and_within_bounds() -> None:
    found = diverse_widths([4, 4, 4, 4], DENSE, 40, seed=1)
    assert found == diverse_widths([4, 4, 4, 4], DENSE, 40, seed=1)
    assert found[0] == DENSE
    assert len(set(found)) == 40
    columns = np.array(found)
    assert (columns >= 4).all()
    assert (columns <= np.array(DENSE)).all()
    assert 0.3 < (columns % 4 == 0).all(axis=1).mean() < 0.7, "about half of them rounded"
    assert diverse_widths([3], [5], 40, seed=0) != [], "fewer where there are no more"
    assert len(diverse_widths([3], [5], 40, seed=0)) == 3
