"""Counts on built models against the textbook formulas."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_prune.costs import count_macs, count_params


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 1, 1), (2, 1, 1), (1, 0, 2), (3, 0, 1)])
def test_a_convolution(batch: int, groups: int, stride: int, padding: int, dilation: int) -> None:
    conv = nn.Conv2d(8, 16, 3, stride, padding, dilation, groups)
    height, width = ((size + 2 * padding - dilation * 2 - 1) // stride + 1 for size in (10, 13))
    expected = height * width * 16 * (8 // groups) * 9
    assert count_macs(conv, (torch.rand(batch, 8, 10, 13),)) == expected
    assert count_params(conv) == 16 * (8 // groups) * 9 + 16


def test_a_depthwise_convolution() -> None:
    conv = nn.Conv2d(6, 6, 5, padding=2, groups=6, bias=False)
    assert count_macs(conv, (torch.rand(2, 6, 7, 7),)) == 49 * 6 * 25
    assert count_params(conv) == 6 * 25


def test_a_convolution_with_one_output_channel_is_not_depthwise() -> None:
    assert count_macs(nn.Conv2d(6, 1, 3, padding=1), (torch.rand(1, 6, 4, 4),)) == 16 * 6 * 9


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer(bias: bool) -> None:
    linear = nn.Linear(12, 5, bias=bias)
    assert count_macs(linear, (torch.rand(4, 12),)) == 60
    assert count_params(linear) == 60 + 5 * bias


def test_a_linear_layer_over_tokens_counts_each() -> None:
    assert count_macs(nn.Linear(12, 5), (torch.rand(4, 7, 12),)) == 7 * 60


def test_a_transposed_convolution() -> None:
    conv = nn.ConvTranspose2d(4, 6, 2, stride=2)
    assert count_macs(conv, (torch.rand(1, 4, 5, 5),)) == 25 * 4 * 6 * 4


class Tied(nn.Module):
    """Two linear layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.b(self.a(x))
        return out


def test_tied_weights_are_one_parameter_and_two_products() -> None:
    assert count_params(Tied()) == 36
    assert count_macs(Tied(), (torch.rand(1, 6),)) == 72


def test_norms_and_activations_cost_no_macs_and_buffers_are_no_parameters() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2))
    assert count_macs(model, (torch.rand(2, 3, 4, 4),)) == 0
    assert count_params(model) == 6


def test_the_model_comes_back_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout())
    model.train()
    model[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, (torch.rand(2, 3, 4, 4),))
    assert [module.training for module in model] == [True, True, False]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_mode_comes_back_when_the_model_fails() -> None:
    model = nn.Linear(3, 2).train()
    with pytest.raises(RuntimeError):
        count_macs(model, (torch.rand(1, 4),))
    assert model.training


def test_a_parameter_given_to_a_module_as_input() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.layer = nn.Parameter(torch.randn(2, 4)), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.layer(self.token).sum() + self.layer(x))

    model = Tokens()
    assert count_macs(model, (torch.randn(1, 4),)) == (2 + 1) * 4 * 3
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("batch", [1, 4])
def test_work_beside_the_batch_counts_once(batch: int) -> None:
    class Factored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.u, self.v = nn.Parameter(torch.randn(10, 4)), nn.Parameter(torch.randn(4, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(x, self.u @ self.v)

    assert count_macs(Factored(), (torch.randn(batch, 8),)) == 10 * 4 * 8 + 10 * 8
