"""Operators that look across channels: the pruned model computes them from what is left, and the group says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from automl_prune.channels import proof_error, prune
from automl_prune.channels.reference import silenced_outputs
from tests.channels.nets import INPUTS, Net, check, conv, head


class LayerNorm2d(nn.LayerNorm):
    """Over channels that stand in dimension 1, as in ConvNeXt."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("norm", "widths"),
    [
        (nn.GroupNorm(3, 12), {"a": 4}),  # three parts of four: equal positions are tied
        (nn.GroupNorm(1, 12), {"a": 12}),
        (LayerNorm2d(12), {"a": 12}),
        (LayerNorm2d(12, elementwise_affine=False), {}),  # its size is a number that no tensor shows
        (nn.InstanceNorm2d(12, affine=True), {"a": 12}),
    ],
)
def test_norms(norm: nn.Module, widths: dict[str, int]) -> None:
    graph = check(Net(lambda m, x: m.head(m.norm(m.a(x))), a=conv(3, 12), norm=norm, head=head(12)))
    assert graph.widths == widths
    mixing = not isinstance(norm, nn.InstanceNorm2d)
    assert all(bool(group.mixes) is mixing for group in graph.groups)


def test_the_reference_is_the_norm_of_what_is_left() -> None:
    """Against a computation by hand, so that proof and reference cannot be wrong in the same way."""
    first, norm, last = nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2)
    net = nn.Sequential(first, norm, last).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    graph = check(net, (x,))
    kept = [0, 2, 5]
    plan = graph.plan({"0": kept})
    y = first(x)[:, kept]
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    by_hand = (y * norm.weight[kept] + norm.bias[kept]) @ last.weight[:, kept].T + last.bias
    torch.testing.assert_close(silenced_outputs(net, plan, (x,)), by_hand)
    torch.testing.assert_close(prune(net, plan)(x), by_hand)


@pytest.mark.parametrize(
    ("across", "mixes"),
    [
        (lambda y: y * y.softmax(1), ("softmax",)),
        (lambda y: y - y.mean(1, keepdim=True), ("mean",)),
        (lambda y: y / (y.norm(dim=1, keepdim=True) + 1), ("linalg_vector_norm",)),
        (lambda y: y * y.sum(1, keepdim=True), ()),
        (lambda y: y * y.amax(dim=1, keepdim=True), ("amax",)),
        (lambda y: y * torch.einsum("bchw,bchw->bhw", y, y)[:, None], ()),
        (lambda y: y * (y.std(1, keepdim=True) + 1), ("std",)),
    ],
)
def test_reductions_over_channels(across: Any, mixes: tuple[str, ...]) -> None:
    graph = check(Net(lambda m, x: m.head(across(m.a(x))), a=conv(3, 8), head=head(8)))
    assert graph.widths == {"a": 8}
    assert graph["a"].mixes == mixes


def test_a_convolution_over_channels() -> None:
    """Efficient channel attention (arXiv:1910.03151)."""

    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        gate = m.over(y.mean((2, 3))[:, None]).sigmoid()
        return m.head(y * gate[:, 0, :, None, None])

    over = nn.Conv1d(1, 1, 3, padding=1)
    graph = check(Net(forward, a=conv(3, 8), over=over, head=head(8)))
    assert graph.widths == {"a": 8}
    assert graph["a"].mixes == ("a convolution over channels",)


class StandardisedConv(nn.Conv2d):
    """Weight standardisation (arXiv:1903.10520), as BiT and NFNets do."""

    def __init__(self, *args: Any, by_norm: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.by_norm = by_norm
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.by_norm:
            flat = F.batch_norm(
                self.weight.reshape(1, self.out_channels, -1), None, None, weight=self.gain.view(-1), training=True
            )
            weight = flat.reshape_as(self.weight)
        else:
            std, mean = torch.std_mean(self.weight, dim=[1, 2, 3], keepdim=True)
            weight = self.gain * (self.weight - mean) / (std + 1e-5)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


@pytest.mark.parametrize("by_norm", [True, False])
def test_standardised_weights(by_norm: bool) -> None:
    layers = [StandardisedConv(a, b, 3, padding=1, by_norm=by_norm) for a, b in [(3, 8), (8, 6)]]
    graph = check(nn.Sequential(*layers, head(6)))
    assert graph.widths == {"0": 8, "1": 6}
    assert graph["0"].mixes  # the second layer's weights are standardised over what is left of the first


def test_parametrizations() -> None:
    net: Any = Net(
        lambda m, x: m.head(m.b(m.a(x)).relu()),
        a=parametrizations.weight_norm(conv(3, 8)),
        b=parametrizations.weight_norm(conv(8, 6)),
        head=head(6),
    )
    graph = check(net)
    assert graph.widths == {"a": 8, "b": 6}
    small: Any = prune(net, graph.plan({"a": [1, 2, 3]}))
    assert small.b(small.a(INPUTS[0].double())).shape == (2, 6, 8, 8)


def test_layer_scale_and_positional_embedding() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = conv(3, 8), conv(8, 8), head(8)
            self.position = nn.Parameter(torch.randn(1, 8, 8, 8))
            self.gamma = nn.Parameter(1e-6 * torch.ones(8))

        def forward(self, x: torch.Tensor) -> Any:
            x = self.a(x) + self.position
            return self.head(x + self.gamma[:, None, None] * self.b(x))

    assert check(Scaled()).widths == {"a": 8}


def test_a_dead_branch_does_not_hide_a_wrong_index() -> None:
    """A residual branch that starts at zero has no influence on the output; the proof gives it some."""

    class Wrong(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = conv(3, 8), conv(8, 3), head(3)
            self.norm = nn.BatchNorm2d(3)
            nn.init.zeros_(self.norm.weight)

        def forward(self, x: torch.Tensor) -> Any:
            y = self.a(x)
            y = y * torch.arange(1.0, 1 + y.shape[1], dtype=y.dtype)[:, None, None]  # depends on the place
            return self.head(x + self.norm(self.b(y)))

    net = Wrong().double()
    graph = check(net)
    assert "a" not in graph.widths
    assert any(s.name == "a" and "proof failed" in s.reason for s in graph.skipped)
    assert proof_error(net, graph.plan({}), tuple(t.double() for t in INPUTS)) == 0
