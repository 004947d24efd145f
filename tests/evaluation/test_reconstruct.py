"""Reconstructed weights against least squares solved by numpy on the layer's own unfolded inputs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, collect
from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.evaluation import SequentialReconstruction, reconstruct, unreconstructible
from automl_prune.files import tensors_digest
from automl_prune.models import resnet8
from automl_prune.seeding import derive_seed, seeded
from automl_prune.tasks import Task

CPU = torch.device("cpu")
SETTINGS = CalibrationSettings(samples=256, positions=10_000)
Array = NDArray[np.float64]


def _images(task: Task) -> torch.Tensor:
    return torch.cat([x for x, _ in task.batches("train", shuffle=derive_seed("calibration", 0))])[:256]


def _setup(model: nn.Module, task: Task, kept: dict[str, Any]) -> tuple[nn.Module, Plan, Calibration]:
    model.eval()
    plan = ChannelGraph.trace(model, task.example_inputs).plan(kept)
    return prune(model, plan), plan, collect(model, task, SETTINGS, device=CPU)


def _fit(inputs: torch.Tensor, outputs: torch.Tensor, start: Array, damping: float, *, intercept: bool) -> Any:
    """Ridge on the change from ``start``, as an ordinary least squares problem with extra rows; numpy only."""
    x, y = inputs.double().numpy(), outputs.double().numpy()
    mean_x, mean_y = (x.mean(0), y.mean(0)) if intercept else (np.zeros(x.shape[1]), np.zeros(y.shape[1]))
    x, y = x - mean_x, y - mean_y
    weight = np.sqrt(damping * (x**2).mean() * len(x))
    rows = np.vstack([x, weight * np.eye(x.shape[1])])
    targets = np.vstack([y, weight * start.T])
    solution = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    return solution, mean_y - solution @ mean_x


def _unfolded(x: torch.Tensor, conv: nn.Conv2d) -> torch.Tensor:
    return F.unfold(x, conv.kernel_size, 1, conv.padding, conv.stride).transpose(1, 2).flatten(0, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("damping", [1e-6, 1e-1])
def test_a_convolution_is_the_least_squares_fit(digits_task: Task, bias: bool, damping: float) -> None:
    with seeded("convolution"):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3, stride=2, padding=1, bias=bias),
            nn.Flatten(),
            nn.Linear(36, 2),
        )
    kept = {"0": [0, 2, 3, 5], "2": [1, 2]}
    small, plan, calibration = _setup(model, digits_task, kept)
    conv: Any = model[2]
    rows = _unfolded(model[:2](_images(digits_task)).detach(), conv)
    columns = [c * 9 + k for c in kept["0"] for k in range(9)]
    outputs = rows @ conv.weight[kept["2"]].detach().flatten(1).T
    if bias:
        outputs = outputs + conv.bias[kept["2"]].detach()
    start = conv.weight[kept["2"]].detach().flatten(1)[:, columns].double().numpy()
    weight, offset = _fit(rows[:, columns], outputs, start, damping, intercept=bias)
    reconstruct(small, model, plan, calibration, damping=damping)
    np.testing.assert_allclose(small.get_parameter("2.weight").detach().flatten(1).numpy(), weight, atol=2e-3)
    if bias:
        np.testing.assert_allclose(small.get_parameter("2.bias").detach().numpy(), offset, atol=2e-3)


def test_parts_of_a_grouped_convolution_are_fitted_alone(digits_task: Task) -> None:
    with seeded("grouped"):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1, groups=2), nn.Flatten(), nn.Linear(144, 2)
        )
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    name = next(group.name for group in graph.groups if group.width == 4)  # pairs of equal positions in both parts
    small, plan, calibration = _setup(model, digits_task, {name: [0, 3]})
    x = model[:2](_images(digits_task)).detach().flatten(2).transpose(1, 2).flatten(0, 1)
    reconstruct(small, model, plan, calibration, damping=1e-6)
    for part in range(2):
        read = x[:, 4 * part : 4 * part + 4]
        weight = model.get_parameter("2.weight").detach()[2 * part : 2 * part + 2].flatten(1)
        bias = model.get_parameter("2.bias").detach()[2 * part : 2 * part + 2]
        solution, offset = _fit(
            read[:, [0, 3]], read @ weight.T + bias, weight[:, [0, 3]].double().numpy(), 1e-6, intercept=True
        )
        found = small.get_parameter("2.weight").detach()[2 * part : 2 * part + 2].flatten(1)
        np.testing.assert_allclose(found.numpy(), solution, atol=1e-3)
        np.testing.assert_allclose(
            small.get_parameter("2.bias").detach()[2 * part : 2 * part + 2].numpy(), offset, atol=1e-3
        )


def test_every_tap_of_a_transposed_convolution_is_fitted(digits_task: Task) -> None:
    with seeded("transposed"):
        model = nn.Sequential(
            nn.Conv2d(1, 5, 3), nn.ReLU(), nn.ConvTranspose2d(5, 2, 2, stride=2), nn.Flatten(), nn.Linear(288, 2)
        )
    kept = [0, 1, 4]
    small, plan, calibration = _setup(model, digits_task, {"0": kept})
    x = model[:2](_images(digits_task)).detach().flatten(2).transpose(1, 2).flatten(0, 1)
    taps = model.get_parameter("2.weight").detach().flatten(1)  # (inputs, outputs * taps)
    solution, _ = _fit(x[:, kept], x @ taps, taps[kept].T.double().numpy(), 1e-3, intercept=False)
    reconstruct(small, model, plan, calibration, damping=1e-3)
    np.testing.assert_allclose(small.get_parameter("2.weight").detach().flatten(1).T.numpy(), solution, atol=1e-3)


class _Concatenated(nn.Module):
    """Two branches side by side: two groups on one axis, flattened, read by one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3), nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(7)
        self.fc = nn.Linear(7 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(F.relu(self.norm(torch.cat([self.a(x), self.b(x)], dim=1))).flatten(1))  # type: ignore[no-any-return]


def test_groups_on_one_axis_are_fitted_together(digits_task: Task) -> None:
    with seeded("concatenated"):
        model = _Concatenated()
    small, plan, calibration = _setup(model, digits_task, {"a": [0, 2], "b": [1, 3]})
    images = _images(digits_task)
    x = F.relu(model.norm(torch.cat([model.a(images), model.b(images)], dim=1))).flatten(1).detach()
    columns = [channel * 36 + position for channel in (0, 2, 4, 6) for position in range(36)]
    start = model.fc.weight.detach()[:, columns].double().numpy()
    weight, offset = _fit(x[:, columns], model.fc(x).detach(), start, 1e-2, intercept=True)
    reconstruct(small, model, plan, calibration, damping=1e-2)
    np.testing.assert_allclose(small.get_parameter("fc.weight").detach().numpy(), weight, atol=1e-3)
    np.testing.assert_allclose(small.get_parameter("fc.bias").detach().numpy(), offset, atol=1e-3)


def test_what_the_kept_channels_tell_is_not_lost(digits_task: Task) -> None:
    """A channel that is twice another, and a constant one: both can go without a trace."""
    with seeded("redundant"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    with torch.no_grad():
        model.get_parameter("0.weight")[1] = 2 * model.get_parameter("0.weight")[0]
        model.get_parameter("0.bias")[1] = 2 * model.get_parameter("0.bias")[0]
        model.get_parameter("0.weight")[3] = 0
        model.get_parameter("0.bias")[3] = 0.7
    small, plan, calibration = _setup(model, digits_task, {"0": [0, 2]})
    before, images = tensors_digest(model.state_dict()), _images(digits_task)
    cut = (small(images) - model(images)).abs().max()
    reconstruct(small, model, plan, calibration, damping=1e-7)
    assert (small(images) - model(images)).abs().max() < 2e-3 < cut
    assert tensors_digest(model.state_dict()) == before


def test_inputs_that_are_always_zero_change_nothing(digits_task: Task) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3, bias=False), nn.Flatten(), nn.Linear(48, 2))
    with torch.no_grad():
        model.get_parameter("0.bias").fill_(-100.0)
    small, plan, calibration = _setup(model, digits_task, {"0": [0, 1]})
    cut = copy.deepcopy(small.state_dict())
    reconstruct(small, model, plan, calibration)
    assert all(torch.equal(tensor, cut[name]) for name, tensor in small.state_dict().items())


def test_derived_weights_are_left_and_named(digits_task: Task) -> None:
    class Doubled(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(x, 2 * self.weight, self.bias)

    model = nn.Sequential(nn.Conv2d(1, 4, 3), Doubled(4, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    small, plan, calibration = _setup(model, digits_task, {"0": [0, 1], "1": [0, 1]})
    cut = copy.deepcopy(small.state_dict())
    assert unreconstructible(plan.graph, calibration) == {"1.weight": "what it multiplies by is derived from it"}
    reconstruct(small, model, plan, calibration)
    changed = [name for name, tensor in small.state_dict().items() if not torch.equal(tensor, cut[name])]
    assert changed == ["3.weight", "3.bias"]


def _error(small: nn.Module, model: nn.Module, images: torch.Tensor) -> float:
    with torch.no_grad():
        return float((small(images) - model(images)).square().mean())


def test_layer_by_layer_is_nearer_to_the_dense_model(digits_task: Task) -> None:
    with seeded("sequential"):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(32, 4),
        )  # fmt: skip
    kept = {name: [0, 1, 2, 3] for name in ("0", "2", "4")}
    small, plan, calibration = _setup(model, digits_task, kept)
    images = _images(digits_task)
    errors = [_error(small, model, images)]
    reconstruct(small, model, plan, calibration)
    errors.append(_error(small, model, images))
    small = prune(model, plan)
    SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=256)(small, plan)
    errors.append(_error(small, model, images))
    assert errors[0] > errors[1] > errors[2]
    # the last layer is the best possible for what it reads: its residual does not depend on its inputs
    with torch.no_grad():
        x = small[:7](images)  # type: ignore[index]  # a sequence too
        missing = model(images) - small(images)
    assert missing.mean(0).abs().max() < 1e-4
    centred = x - x.mean(0)
    gradient = centred.T @ missing / len(x)
    change = small.get_parameter("7.weight").detach() - model.get_parameter("7.weight").detach()[:, : x.shape[1]]
    assert gradient.abs().max() < 1e-2 * centred.square().mean() * max(1.0, float(change.abs().max()))


def test_sequential_on_a_residual_network_with_shared_widths(digits_task: Task) -> None:
    with seeded("residual"):
        model = resnet8(num_classes=10, in_channels=1, width=8)
    graph = ChannelGraph.trace(model.eval(), digits_task.example_inputs)
    kept = {name: list(range(width // 2)) for name, width in graph.widths.items()}
    small, plan, calibration = _setup(model, digits_task, kept)
    images, steps = _images(digits_task), []
    reconstruct(small, model, plan, calibration)
    at_once = _error(small, model, images)
    small = prune(model, plan)
    fit = SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=128)
    fit(small, plan, on_step=lambda *s: steps.append(s))
    assert _error(small, model, images) < at_once
    assert steps[-1] == (len(steps), len(steps))


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are looked at in all positions, as in the references."""
    monkeypatch.setattr("automl_prune.evaluation.sequential.POSITIONS", SETTINGS.positions)


class _Shared(nn.Module):
    """One layer that is applied twice, between others that are applied once."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Linear(6 * 36, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        for _ in range(2):
            x = F.relu(self.twice(x))
        return self.last(x.flatten(1))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("everywhere")
def test_a_layer_that_runs_twice_is_fitted_to_both(digits_task: Task) -> None:
    with seeded("shared"):
        model = _Shared()
    name = next(iter(ChannelGraph.trace(model, digits_task.example_inputs).widths))
    small, plan, calibration = _setup(model, digits_task, {name: [0, 1, 2, 4]})
    fit = SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=256)
    fit(small, plan)
    images, inputs, wanted = _images(digits_task), [], []
    with torch.no_grad():
        before = prune(model, plan)
        reconstruct(before, model, plan, calibration)
        x, y = F.relu(model.first(images)), F.relu(before.first(images))  # type: ignore[operator]
        for _ in range(2):  # what it reads is computed with the weights that it had
            inputs.append(_unfolded(y, before.twice))  # type: ignore[arg-type]
            x, y = model.twice(x), F.relu(before.twice(y))  # type: ignore[operator]
            wanted.append(x[:, [0, 1, 2, 4]].flatten(2).transpose(1, 2).flatten(0, 1))
            x = F.relu(x)
    start = before.get_parameter("twice.weight").detach().flatten(1).double().numpy()
    weight, offset = _fit(torch.cat(inputs), torch.cat(wanted), start, 1e-2, intercept=True)
    np.testing.assert_allclose(small.get_parameter("twice.weight").detach().flatten(1).numpy(), weight, atol=1e-3)
    np.testing.assert_allclose(small.get_parameter("twice.bias").detach().numpy(), offset, atol=1e-3)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("layer", ["2", "4"])
def test_every_layer_is_fitted_to_what_it_really_reads(digits_task: Task, layer: str) -> None:
    with seeded("on the way"):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 3), nn.Flatten()
        )
    kept = {"0": [0, 2, 5], "2": [1, 2, 3]}
    small, plan, calibration = _setup(model, digits_task, kept)
    SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=256)(small, plan)
    before = prune(model, plan)
    reconstruct(before, model, plan, calibration)
    images, position = _images(digits_task), int(layer)
    with torch.no_grad():
        inputs = _unfolded(small[:position](images), small[position])  # type: ignore[index]
        outputs = model[: position + 1](images).flatten(2).transpose(1, 2).flatten(0, 1)
    wanted = outputs[:, kept.get(layer, [0, 1, 2])]
    start = before.get_parameter(f"{layer}.weight").detach().flatten(1).double().numpy()
    weight, offset = _fit(inputs, wanted, start, 1e-2, intercept=True)
    np.testing.assert_allclose(small.get_parameter(f"{layer}.weight").detach().flatten(1).numpy(), weight, atol=1e-3)
    np.testing.assert_allclose(small.get_parameter(f"{layer}.bias").detach().numpy(), offset, atol=1e-3)


@pytest.mark.usefixtures("everywhere")
def test_batches_that_cannot_be_joined_give_the_same(digits_task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it matter whether dense outputs are remembered."""
    with seeded("chunks"):
        model = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 3)
        )
    small, plan, calibration = _setup(model, digits_task, {"0": [0, 2, 5], "2": [1, 2, 3]})
    joined = SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=256)
    joined(small, plan)
    again = prune(model, plan)
    joined(again, plan)
    assert tensors_digest(again.state_dict()) == tensors_digest(small.state_dict())
    monkeypatch.setattr("automl_prune.evaluation.sequential.OUTPUTS", 0)
    apart = SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=256)
    monkeypatch.setattr(apart, "_chunks", [(_images(digits_task)[:100],), (_images(digits_task)[100:],)])
    for _ in range(2):
        other = prune(model, plan)
        apart(other, plan)
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(tensor, small.state_dict()[name], atol=1e-4, rtol=1e-3)


def test_inputs_that_hardly_vary_are_no_obstacle(digits_task: Task) -> None:
    """Their covariance is lost in the rounding of their second moment."""
    with seeded("nearly constant"):
        model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.Flatten(), nn.Linear(216, 3))
    with torch.no_grad():
        model.get_parameter("0.weight").mul_(1e-5)
        model.get_parameter("0.bias").fill_(10.0)
    small, plan, calibration = _setup(model, digits_task, {"0": [0, 2]})
    images = _images(digits_task)
    cut = _error(small, model, images)
    reconstruct(small, model, plan, calibration)
    assert _error(small, model, images) < 1e-6 < cut
    SequentialReconstruction(model, calibration, digits_task, device=CPU, samples=128)(small, plan)
    assert _error(small, model, images) < 1e-6
