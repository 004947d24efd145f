"""Every statistic against the whole unfolded input, taken by torch's unfold or by hand from the module's own input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from automl_prune.calibration import Calibration, CalibrationSettings, collect, with_gradients
from automl_prune.errors import ConfigError, EvaluationError
from automl_prune.files import tensors_digest
from automl_prune.seeding import derive_seed, seeded
from automl_prune.tasks import Task

CPU = torch.device("cpu")
EVERYTHING = CalibrationSettings(samples=64, positions=10_000, gradient_samples=64)


def _images(task: Task, count: int = 64) -> torch.Tensor:
    batches = task.batches("train", shuffle=derive_seed("calibration", 0))
    return torch.cat([images for images, _ in batches])[:count]


def _collect(model: nn.Module, task: Task, settings: CalibrationSettings = EVERYTHING) -> Calibration:
    return collect(model, task, settings, device=CPU)


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariance and mean of rows, in double precision by numpy."""
    x = rows.double().numpy()
    return torch.from_numpy(np.cov(x.T, bias=True).reshape(x.shape[1], -1)), torch.from_numpy(x.mean(0))


def _assert_moments(calibration: Calibration, name: str, parts: list[torch.Tensor]) -> None:
    layer = calibration.layers[name]
    assert layer.covariance is not None
    assert layer.rows == len(parts[0])
    for part, rows in enumerate(parts):
        covariance, mean = _moments(rows)
        torch.testing.assert_close(layer.covariance[part].double(), covariance, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(layer.mean[part].double(), mean, rtol=1e-4, atol=1e-6)


# torch says that an odd padding costs a copy
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "padding": (2, 0)},
        {"dilation": 2, "padding": "same"},
        {"kernel_size": (2, 4), "padding": "same"},
        {"groups": 2},
    ],
)
def test_moments_are_those_of_the_unfolded_input(digits_task: Task, options: dict[str, Any]) -> None:
    with seeded("unfold"):
        first = nn.Conv2d(1, 4, 3, padding=1)
        conv = nn.Conv2d(4, 6, **{"kernel_size": 3, **options})
    x = F.relu(first(_images(digits_task))).detach()
    calibration = _collect(nn.Sequential(first, nn.ReLU(), conv), digits_task)
    if conv.padding == "same":  # what torch adds, the odd one after
        totals = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        x = F.pad(x, (totals[1] // 2, totals[1] - totals[1] // 2, totals[0] // 2, totals[0] - totals[0] // 2))
    padding: Any = 0 if conv.padding == "same" else conv.padding
    rows = F.unfold(x, conv.kernel_size, conv.dilation, padding, conv.stride).transpose(1, 2).flatten(0, 1)
    _assert_moments(calibration, "2.weight", list(rows.chunk(conv.groups, dim=1)))
    # the rows are what the layer multiplies: the mean output follows from the mean input
    layer = calibration.layers["2.weight"]
    outputs = (layer.matrix(conv.weight.detach()) @ layer.mean.unsqueeze(2)).flatten() + conv.bias.detach()  # type: ignore[union-attr]
    expected = conv(F.relu(first(_images(digits_task)))).mean((0, 2, 3)).detach()
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


def test_padding_modes_and_layers_that_pad_on_their_own(digits_task: Task) -> None:
    class Same(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, self.bias, self.stride)

    images = _images(digits_task)
    for conv, padded in (
        (nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), F.pad(images, (1, 1, 1, 1), mode="reflect")),
        (Same(1, 2, 3, stride=2), F.pad(images, (0, 1, 0, 1))),
    ):
        rows = F.unfold(padded, 3, stride=conv.stride).transpose(1, 2).flatten(0, 1)
        _assert_moments(_collect(nn.Sequential(conv), digits_task), "0.weight", [rows])


def test_one_and_three_dimensions(digits_task: Task) -> None:
    class Lines(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Conv1d(8, 3, 3, stride=2)
            self.volume = nn.Conv3d(1, 2, (1, 2, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.line(x.squeeze(1)).sum() + self.volume(x.unsqueeze(2)).sum()  # type: ignore[no-any-return]

    calibration = _collect(Lines(), digits_task)
    images = _images(digits_task)
    lines = torch.stack([images[:, 0, :, start : start + 3].flatten(1) for start in (0, 2, 4)]).flatten(0, 1)
    _assert_moments(calibration, "line.weight", [lines])
    _assert_moments(calibration, "volume.weight", [F.unfold(images, (2, 3)).transpose(1, 2).flatten(0, 1)])


def test_transposed_convolutions_give_the_moments_of_their_input(digits_task: Task) -> None:
    with seeded("transposed"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2))
    calibration = _collect(model, digits_task)
    rows = model[0](_images(digits_task)).detach().flatten(2).transpose(1, 2).flatten(0, 1)
    _assert_moments(calibration, "1.weight", list(rows.chunk(2, dim=1)))
    layer = calibration.layers["1.weight"]
    assert (layer.transposed, layer.kernel, layer.axis) == (True, 1, 0)
    # channel 1 sits at position 1 of both parts
    assert layer.columns(np.array([[1, 3]])).tolist() == [[1]]
    # every tap of every output, from the inputs of its part
    weight = model.get_parameter("1.weight").detach()
    assert torch.equal(layer.matrix(weight)[1, 2 * 9 + 4], weight[2:, 2, 1, 1])


def test_tokens_and_shared_layers(digits_task: Task) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(F.relu(self.linear(x.squeeze(1))))  # type: ignore[no-any-return]

    with seeded("tokens"):
        model = Tokens()
    calibration = _collect(model, digits_task)
    tokens = _images(digits_task).flatten(0, 2)
    read = torch.cat([tokens, F.relu(F.linear(tokens, model.linear.weight, model.linear.bias)).detach()])
    _assert_moments(calibration, "linear.weight", [read])
    layer = calibration.layers["linear.weight"]
    torch.testing.assert_close(layer.channel_mean[0], read.mean(0))
    torch.testing.assert_close(layer.channel_variance[0], read.var(0, correction=0))
    torch.testing.assert_close(layer.zero_fraction[0], (read == 0).float().mean(0))


def test_columns_of_channels_that_take_several_positions(digits_task: Task) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, (1, 2)), nn.Flatten(), nn.Linear(90, 4))
    layers = _collect(model, digits_task).layers
    assert layers["1.weight"].columns(np.array([[0], [1]])).tolist() == [[0, 1], [2, 3]]
    assert layers["3.weight"].columns(np.array([[0, 1], [5, 6]])).tolist() == [[0, 1], [5, 6]]


def test_sampled_positions_estimate_the_same(digits_task: Task) -> None:
    with seeded("sampled"):
        model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3))
    few = _collect(model, digits_task, CalibrationSettings(samples=512, positions=9))
    every = _collect(model, digits_task, CalibrationSettings(samples=512, positions=999))
    sampled, whole = few.layers["2.weight"], every.layers["2.weight"]
    assert (sampled.rows, whole.rows) == (512 * 9, 512 * 36)
    assert sampled.covariance is not None
    assert whole.covariance is not None
    difference = torch.linalg.norm(sampled.covariance - whole.covariance) / torch.linalg.norm(whole.covariance)
    assert 0 < difference < 0.1
    assert torch.equal(sampled.channel_mean, whole.channel_mean)  # these see every position


def test_derived_weights_are_marked_and_depthwise_ones_left_out(digits_task: Task) -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias)

    class Double(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            return 2 * weight

    parametrised = nn.Conv2d(4, 4, 1)
    parametrize.register_parametrization(parametrised, "weight", Double())
    depthwise = nn.Conv2d(4, 4, 3, groups=4)
    calibration = _collect(
        nn.Sequential(nn.Conv2d(1, 4, 3), Standardised(4, 4, 3), parametrised, depthwise), digits_task
    )
    assert {name: layer.exact for name, layer in calibration.layers.items()} == {
        "0.weight": True,
        "1.weight": False,
        "2.parametrizations.weight.original": False,
    }


def test_taylor_products_are_those_of_single_samples(digits_task: Task) -> None:
    """A residual stream, so that the gradient has two readers, with in-place activations and frozen weights."""

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(1, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 4, 3, padding=1)
            self.head = nn.Linear(4, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.read = F.relu_(self.first(x))
            y = self.read + self.second(self.read)
            return self.head(F.relu_(y).mean((2, 3)))  # type: ignore[no-any-return]

    with seeded("taylor"):
        model = Residual().requires_grad_(False)
    before = tensors_digest(model.state_dict())
    calibration = with_gradients(_collect(model, digits_task), model, digits_task, device=CPU)
    batch = next(iter(digits_task.batches("train", shuffle=derive_seed("calibration", 0))))
    expected = torch.zeros(4)
    for image, label in zip(*batch, strict=True):
        outputs = model(image[None].requires_grad_())
        (gradient,) = torch.autograd.grad(F.cross_entropy(outputs, label[None]), model.read)
        expected += (model.read * gradient).mean((2, 3))[0].abs().detach() / 64
    taylor = calibration.layers["second.weight"].taylor
    assert taylor is not None
    assert calibration.gradient_samples == 64
    torch.testing.assert_close(taylor[0], expected, rtol=1e-4, atol=1e-8)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert tensors_digest(model.state_dict()) == before


def test_an_activation_overwritten_later_has_no_product(digits_task: Task) -> None:
    class Overwriting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 64).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1) * 1
            y = self.linear(x)
            return y + x.add_(1)  # type: ignore[no-any-return]

    model = Overwriting()
    with pytest.raises(EvaluationError, match=r"'linear.weight' reads is overwritten in place"):
        with_gradients(_collect(model, digits_task), model, digits_task, device=CPU)


def test_modes_are_restored_and_hooks_removed(digits_task: Task, tiny_resnet: nn.Module) -> None:
    tiny_resnet.layer1.eval()  # type: ignore[union-attr]
    modes = [module.training for module in tiny_resnet.modules()]
    first = _collect(tiny_resnet, digits_task)
    second = _collect(tiny_resnet, digits_task)
    assert [module.training for module in tiny_resnet.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny_resnet.modules())
    for name, layer in first.layers.items():
        other = second.layers[name].covariance
        assert other is not None
        assert layer.covariance is not None
        assert torch.equal(layer.covariance, other)


def test_weights_that_give_no_numbers_are_an_error(digits_task: Task, tiny_resnet: nn.Module) -> None:
    with torch.no_grad():
        tiny_resnet.get_parameter("conv1.weight").fill_(torch.nan)
    with pytest.raises(EvaluationError, match="not finite"):
        _collect(tiny_resnet, digits_task)


@pytest.mark.parametrize("wrong", ["samples", "positions", "gradient_samples"])
def test_settings_are_checked(wrong: str) -> None:
    with pytest.raises(ConfigError, match=f"{wrong} is 0"):
        CalibrationSettings(**{wrong: 0})


def test_the_covariance_of_inputs_that_hardly_vary_is_none_of_rounding(digits_task: Task) -> None:
    """More than a thousand inputs, summed in single precision, with means a thousand times their deviations."""

    class Far(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).repeat(1, 20) + torch.arange(1280) + 1000

    model = nn.Sequential(Far(), nn.Linear(1280, 2))
    layer = _collect(model, digits_task).layers["1.weight"]
    rows = model[0](_images(digits_task))
    covariance, mean = _moments(rows)
    assert layer.covariance is not None
    error = (layer.covariance[0].double() - covariance).abs().max() / covariance.abs().max()
    assert error < 1e-4
    torch.testing.assert_close(layer.mean[0].double(), mean, rtol=1e-6, atol=0)
