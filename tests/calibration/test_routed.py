"""Layers that see only some samples, or none: experts that the forward pass chooses between."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from automl_prune.calibration import CalibrationSettings, collect, with_gradients
from automl_prune.calibration.calls import LayerCall
from automl_prune.calibration.collect import unfolded_rows
from automl_prune.channels import ChannelGraph, prune
from automl_prune.evaluation import SequentialReconstruction, reconstruct, unreconstructible
from automl_prune.files import tensors_digest
from automl_prune.seeding import derive_seed, seeded
from automl_prune.tasks import Task

CPU = torch.device("cpu")
SETTINGS = CalibrationSettings(samples=64, gradient_samples=64)


class Routed(nn.Module):
    """Samples brighter than ``limit`` go to the first expert, the others to the second."""

    def __init__(self, limit: float, *, convolutions: bool) -> None:
        super().__init__()
        self.limit, self.convolutions = limit, convolutions
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.experts = nn.ModuleList(self._expert() for _ in range(2))
        self.fc = nn.Linear(4, 10)

    def _expert(self) -> nn.Module:
        if self.convolutions:
            return nn.Sequential(nn.Conv2d(6, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2))
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))

    def bright(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((1, 2, 3)) > self.limit

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, on = self.stem(x), self.bright(x)
        y = y if self.convolutions else y.mean((2, 3))
        out = y.new_zeros(len(y), 4)
        for expert, chosen in zip(self.experts, (on, ~on), strict=True):
            out[chosen] = expert(y[chosen]).flatten(2).mean(2) if self.convolutions else expert(y[chosen])
        return torch.as_tensor(self.fc(out))


def _routed(limit: float, *, convolutions: bool) -> Routed:
    with seeded("routed"):
        return Routed(limit, convolutions=convolutions).eval()


def _images(task: Task) -> torch.Tensor:
    images: torch.Tensor = next(iter(task.batches("train", shuffle=derive_seed("calibration", 0))))[0]
    return images


@pytest.mark.parametrize("convolutions", [False, True])
@pytest.mark.parametrize(("limit", "idle"), [(-math.inf, 1), (math.inf, 0)])
def test_an_expert_that_no_sample_reaches_has_no_statistics(
    digits_task: Task, limit: float, idle: int, convolutions: bool
) -> None:
    net = _routed(limit, convolutions=convolutions)
    found = with_gradients(collect(net, digits_task, SETTINGS, device=CPU), net, digits_task, device=CPU)
    busy = 1 - idle
    assert set(found.layers) == {"stem.weight", f"experts.{busy}.0.weight", f"experts.{busy}.2.weight", "fc.weight"}
    assert all(layer.taylor is not None for layer in found.layers.values())


def test_an_expert_that_some_batches_miss_has_those_of_the_others(digits_task: Task) -> None:
    brightness = _images(digits_task).mean((1, 2, 3))
    net = _routed(float(brightness.max()) - 1e-6, convolutions=False)  # one sample of the first batch
    found = collect(net, digits_task, CalibrationSettings(samples=10_000), device=CPU).layers
    batches = [images for images, _ in digits_task.batches("train", shuffle=derive_seed("calibration", 0))]
    chosen = [images[net.bright(images)] for images in batches]
    assert any(len(each) == 0 for each in chosen)
    assert found["experts.0.0.weight"].rows == sum(len(each) for each in chosen)
    read = torch.cat([net.stem(each).mean((2, 3)) for each in chosen if len(each)]).detach()
    torch.testing.assert_close(found["experts.0.0.weight"].mean[0], read.mean(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "convolution", "transposed"])
def test_an_empty_input_has_no_rows_of_the_right_length(kind: str) -> None:
    x = torch.zeros(0, 8) if kind == "linear" else torch.zeros(0, 8, 5, 5)
    weight = torch.zeros({"linear": (6, 8), "convolution": (6, 4, 3, 3), "transposed": (8, 3, 2, 2)}[kind])
    groups = 1 if kind == "linear" else 2
    call = LayerCall("weight", True, x, weight, kind, groups, (1, 1), ((0, 0), (0, 0)), (1, 1))
    expected = {"linear": 8, "convolution": 36, "transposed": 4}[kind]
    assert unfolded_rows(call, 4, 2, torch.Generator()).shape == (groups, 0, expected)


def _experts(net: nn.Module) -> list[str]:
    return [tensors_digest(net.get_submodule(f"experts.{number}").state_dict()) for number in range(2)]


@pytest.mark.parametrize("idle", [False, True])
def test_reconstruction_leaves_an_expert_without_samples_as_it_is(digits_task: Task, idle: bool) -> None:
    limit = -math.inf if idle else float(_images(digits_task).mean((1, 2, 3)).median())
    net = _routed(limit, convolutions=False)
    graph = ChannelGraph.trace(net, digits_task.example_inputs)
    assert {"experts.0.0": 8, "experts.1.0": 8}.items() <= graph.widths.items()
    calibration = collect(net, digits_task, SETTINGS, device=CPU)
    plan = graph.plan({"experts.0.0": range(4), "experts.1.0": range(4)})
    small = prune(net, plan)
    before = _experts(small)
    SequentialReconstruction(net, calibration, digits_task, device=CPU)(small, plan)
    assert [old != new for old, new in zip(before, _experts(small), strict=True)] == [True, not idle]
    assert ("experts.1.2.weight" in unreconstructible(graph, calibration)) is idle


def test_samples_that_take_other_ways_through_the_pruned_model_are_left_out(digits_task: Task) -> None:
    limit = float(_images(digits_task).mean((1, 2, 3)).median())
    net = _routed(limit, convolutions=False)
    plan = ChannelGraph.trace(net, digits_task.example_inputs).plan({"experts.0.0": range(4)})
    calibration = collect(net, digits_task, SETTINGS, device=CPU)
    expected, small = prune(net, plan), prune(net, plan)
    reconstruct(expected, net, plan, calibration)
    small.limit = torch.inf  # type: ignore[assignment]  # as if the choice depended on what was removed
    SequentialReconstruction(net, calibration, digits_task, device=CPU)(small, plan)
    assert _experts(small) == _experts(expected)
