"""The meter: what is measured, remembered and said, with a runtime whose clock is the model's size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import onnx
import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.costs.latency import OTHER, Fingerprint, LatencySettings, runtimes
from automl_prune.costs.latency.runtime import Model, Runner
from automl_prune.errors import ConfigError, PlanError, StudyError
from automl_prune.meter import LatencyMeter
from automl_prune.pricing import check_machine


class Weighing:
    """A runtime that needs a nanosecond for every weight of the model."""

    form: Literal["onnx", "torch"] = "onnx"
    loads = 0

    def fingerprint(self, settings: LatencySettings) -> Fingerprint:
        return Fingerprint("weighing 1", "scales", "a table", 1, settings.threads, settings.batch_size, "wall time")

    def load(self, model: Model, inputs: Sequence[torch.Tensor], settings: LatencySettings) -> Runner:
        self.loads += 1
        assert isinstance(model, bytes)
        assert len(inputs[0]) == settings.batch_size
        tensors = onnx.load_from_string(model).graph.initializer
        weights = sum(onnx.numpy_helper.to_array(tensor).size for tensor in tensors)
        return lambda: weights * 1e-9

    @contextmanager
    def pinned(self, settings: LatencySettings) -> Iterator[None]:
        yield


WEIGHING = Weighing()
runtimes.register("weighing")(WEIGHING)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)).eval()


@pytest.fixture(scope="module")
def graph(model: nn.Module) -> ChannelGraph:
    return ChannelGraph.trace(model, (torch.zeros(2, 1, 8, 8),))


def _meter(model: nn.Module, graph: ChannelGraph, **settings: object) -> LatencyMeter:
    chosen = LatencySettings(**{"runtime": "weighing", **settings})  # type: ignore[arg-type]  # some of them
    return LatencyMeter(model, graph, (torch.randn(2, 1, 8, 8),), chosen)


def test_a_candidate_is_measured_beside_the_dense_model(model: nn.Module, graph: ChannelGraph) -> None:
    meter = _meter(model, graph, batch_size=3)
    found = meter.measure({"0": 4})
    assert found.ratio == pytest.approx((4 * 9 + 4 * 4) / (8 * 9 + 8 * 4))
    assert found.seconds == pytest.approx((4 * 9 + 4 * 4) * 1e-9)
    assert found.noisy is None
    assert found.fingerprint == meter.fingerprint
    assert meter.dense().ratio == 1
    cost = meter.cost({"0": 4})
    assert (cost.metric, cost.value, cost.dense) == ("latency", found.seconds, meter.reference)
    assert cost.interval == pytest.approx((cost.value, cost.value))


def test_two_threads_are_measured_and_do_not_compare_with_one(model: nn.Module, graph: ChannelGraph) -> None:
    settings = LatencySettings(threads=2, time_limit=1.0)
    meter = LatencyMeter(model, graph, (torch.randn(2, 1, 8, 8),), settings)
    found = meter.measure({"0": 4})
    assert found.ratio > 0
    assert found.fingerprint == meter.fingerprint
    one = runtimes["onnxruntime"].fingerprint(LatencySettings()).to_json()
    with pytest.raises(StudyError, match=r"threads: 2, not 1; clock: wall time, not"):
        check_machine(settings, one)


def test_what_was_measured_is_not_measured_again(model: nn.Module, graph: ChannelGraph) -> None:
    meter = _meter(model, graph)
    first = meter.measure({"0": 4})
    before = WEIGHING.loads
    assert meter.measure({"0": 4}) is first
    assert meter.measure({}) == meter.dense()
    assert WEIGHING.loads == before


def test_a_reference_from_before_scales_the_seconds(model: nn.Module, graph: ChannelGraph) -> None:
    settings = LatencySettings(runtime="weighing")
    meter = LatencyMeter(model, graph, (torch.randn(2, 1, 8, 8),), settings, reference=2.0)
    assert meter.measure({"0": 4}).seconds == pytest.approx(1.0)
    assert meter.dense().seconds == 2.0


def test_layers_have_their_weights_names_and_all_seconds_are_somewhere(model: nn.Module, graph: ChannelGraph) -> None:
    meter = _meter(model, graph, runtime="onnxruntime")
    seconds = meter.profile({"0": 4})
    assert {"0.weight", "2.weight", OTHER} == set(seconds)
    assert all(taken >= 0 for taken in seconds.values())


def test_torch_runs_the_pruned_module(model: nn.Module, graph: ChannelGraph) -> None:
    meter = _meter(model, graph, runtime="torch")
    assert meter.measure({"0": 4}).ratio > 0
    assert meter.exported is None
    with pytest.raises(ConfigError, match="'onnxruntime' does"):
        meter.profile({"0": 4})


def test_widths_that_do_not_fit_are_refused(model: nn.Module, graph: ChannelGraph) -> None:
    with pytest.raises(PlanError, match="no prunable channel group"):
        _meter(model, graph).measure({"nowhere": 4})
    with pytest.raises(PlanError, match="outside"):
        _meter(model, graph).measure({"0": 9})
