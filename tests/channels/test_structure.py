"""Small networks that broke other pruners, each as a named test, and random networks that hold the proof property."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from automl_prune.channels import ChannelGraph, proof_error, prove, prune
from automl_prune.costs import count_macs, count_params
from automl_prune.errors import ModelError, PlanError
from automl_prune.seeding import seeded

INPUTS = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)


def _check(model: nn.Module, inputs: tuple[torch.Tensor, ...] = INPUTS) -> ChannelGraph:
    """Trace, prove, halve everything, and compare costs and values; returns the proved graph."""
    model = model.double()
    doubles = tuple(t.double() for t in inputs)
    graph = prove(model, ChannelGraph.trace(model, doubles), doubles)
    plan = graph.plan({g.name: range(0, g.width, 2) for g in graph.groups})
    small = prune(model, plan)
    assert {n: c.value for n, c in plan.costs().items()} == {
        "macs": count_macs(small, doubles),
        "params": count_params(small),
    }
    assert proof_error(model, plan, doubles) < 1e-9
    return graph


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


class Net(nn.Module):
    """Layers by name and a forward given as a function of the module and its input."""

    def __init__(self, forward: Callable[[Any, Any], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.run(self, x)
        return result


def _head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def test_one_output_channel_is_not_depthwise() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x)) * m.a(x)), a=conv(3, 8), b=conv(8, 1), head=_head(8))
    assert [g.name for g in _check(net).groups] == ["a"]


def test_depthwise_with_multiplier() -> None:
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 16, groups=8), nn.ReLU(), conv(16, 6), _head(6))
    graph = _check(net)
    small = prune(net, graph.plan({"0": range(4)}))
    depthwise = small[2]  # type: ignore[index]  # a Sequential
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (4, 4, 8)


def test_grouped_convolution_keeps_equal_parts() -> None:
    net = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 24, groups=4), nn.ReLU(), conv(24, 4), _head(4))
    graph = _check(net)
    assert graph.widths == {"0": 4, "2": 6, "4": 4}


def test_transposed_and_grouped_transposed_convolutions() -> None:
    net = nn.Sequential(
        conv(3, 8),
        nn.ConvTranspose2d(8, 12, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 2, 2, groups=2),
        _head(8),
    )
    assert _check(net).groups


def test_concat_then_flatten() -> None:
    net = Net(
        lambda m, x: m.fc(torch.cat([m.a(x), F.relu(m.b(x))], 1).flatten(1)),
        a=conv(3, 4),
        b=conv(3, 6),
        fc=nn.Linear(640, 5),
    )
    graph = _check(net)
    assert graph.widths == {"a": 4, "b": 6}
    assert {m.index.shape[1] for g in graph.groups for m in g.members if m.parameter == "fc.weight"} == {64}


def test_view_by_batch_size() -> None:
    net = Net(lambda m, x: m.fc(m.a(x).view(x.size(0), -1)), a=conv(3, 4), fc=nn.Linear(256, 5))
    assert _check(net).widths == {"a": 4}


def test_chunk_keeps_halves_equal() -> None:
    def forward(m: Any, x: Any) -> Any:
        a, b = m.a(x).chunk(2, 1)
        return m.head(m.b(a * torch.sigmoid(b)))

    assert _check(Net(forward, a=conv(3, 12), b=conv(6, 4), head=_head(4))).widths == {"a": 6, "b": 4}


def test_channel_shuffle() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return m.head(m.b(y))

    assert _check(Net(forward, a=conv(3, 12), b=conv(12, 4), head=_head(4))).groups


def test_pixel_shuffle() -> None:
    net = nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 6), _head(6))
    assert _check(net).widths == {"0": 4, "2": 6}


def test_tied_weights_stay_tied() -> None:
    net = Net(
        lambda m, x: m.head(m.b(m.a(m.b(m.a(m.stem(x)))))),
        stem=conv(3, 6),
        a=conv(6, 8),
        b=conv(8, 6),
        head=_head(6),
    )
    net.again = net.a
    graph = _check(net)
    small = prune(net, graph.plan({g.name: range(2) for g in graph.groups}))
    assert small.a is small.again


def test_zero_padded_shortcut_protects_only_the_padded() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = F.relu(m.a(x))
        return m.head(F.relu(F.pad(y, (0, 0, 0, 0, 2, 2)) + m.b(y)))

    graph = _check(Net(forward, a=conv(3, 8), b=conv(8, 12), head=_head(12)))
    assert graph.widths == {"a": 8}
    assert [(s.name, s.width) for s in graph.skipped if "number is fixed" in s.reason] == [("b", 4)]


def test_in_place_operations_and_shape_assertions() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = F.relu(m.a(x), inplace=True)
        y += m.b(x)
        assert y.shape[2:] == x.shape[2:]
        return m.head(y.mul_(0.5))

    assert _check(Net(forward, a=conv(3, 8), b=conv(3, 8), head=_head(8))).widths == {"a": 8}


def test_squeeze_and_excitation() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        return m.head(y * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True))))))

    graph = _check(Net(forward, a=conv(3, 12), down=conv(12, 4, 1), up=conv(4, 12, 1), head=_head(12)))
    assert graph.widths == {"a": 12, "down": 4}


def test_a_size_in_the_forward_is_found_by_proof() -> None:
    net = Net(lambda m, x: m.fc(m.b(m.a(x)).view(-1, 256)), a=conv(3, 6), b=conv(6, 4), fc=nn.Linear(256, 5))
    graph = _check(net)
    assert graph.widths == {"a": 6}
    (reason,) = [s.reason for s in graph.skipped if s.name == "b"]
    assert "proof failed" in reason


def test_an_operator_without_a_rule_protects_and_is_named() -> None:
    net = Net(lambda m, x: m.head(m.b(torch.cumprod(m.a(x), 1))), a=conv(3, 6), b=conv(6, 4), head=_head(4))
    graph = _check(net)
    assert graph.widths == {"b": 4}
    assert any(s.name == "a" and "cumprod" in s.reason for s in graph.skipped)


def test_auxiliary_head_of_training_mode_is_pruned_too() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        out = m.head(y)
        return out + m.aux(y) if m.training else out

    net = Net(forward, a=conv(3, 8), head=_head(8), aux=_head(8))
    graph = _check(net)
    small = prune(net, graph.plan({"a": range(3)})).train()
    assert small(INPUTS[0].double()).shape == (2, 5)


def test_unused_layers_are_skipped_with_the_reason() -> None:
    net = Net(lambda m, x: m.head(m.a(x)), a=conv(3, 8), head=_head(8), unused=conv(3, 9))
    assert "unused" not in _check(net).widths


def test_modes_and_weights_of_the_model_are_untouched() -> None:
    net = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4), _head(4)).train()
    net[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = prove(net, ChannelGraph.trace(net, INPUTS), INPUTS)
    small = prune(net, graph.plan({"0": [1, 2]}))
    assert [m.training for m in net] == [m.training for m in small.children()] == [True, False, True, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_model_that_cannot_run_says_so() -> None:
    with pytest.raises(ModelError, match=r"evaluation mode on inputs of shape \[\(1, 3, 8, 8\)\]"):
        ChannelGraph.trace(conv(4, 8), INPUTS)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"0": []}, "keep no channel"),
        ({"0": [0, 8]}, "0 to 7"),
        ({"0": [1, 1]}, "twice"),
        ({"1": [0]}, "did you mean|known are"),
    ],
)
def test_plans_are_checked(kept: dict[str, list[int]], message: str) -> None:
    graph = ChannelGraph.trace(nn.Sequential(conv(3, 8), _head(8)), INPUTS)
    with pytest.raises(PlanError, match=message):
        graph.plan(kept)


class RandomNet(nn.Module):
    """A random chain of branches, concats, sums, groups, shuffles and gates, drawn from a list of step names."""

    def __init__(self, steps: list[tuple[str, int]]) -> None:
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList()
        width = 8
        self.stem = conv(3, width)
        for kind, outputs in steps:
            outputs *= 4
            if kind == "conv":
                layer: nn.Module = nn.Sequential(conv(width, outputs), nn.BatchNorm2d(outputs), nn.SiLU())
            elif kind == "concat":
                layer, outputs = conv(width, outputs), width + outputs
            elif kind == "residual":
                layer, outputs = (
                    nn.Sequential(conv(width, outputs), nn.Hardswish(), conv(outputs, width)),
                    width,
                )
            elif kind == "depthwise":
                layer, outputs = conv(width, width, groups=width), width
            elif kind == "grouped":
                layer = conv(width, outputs, groups=2)
            elif kind == "gate":
                layer, outputs = conv(width, 2 * width, 1), width
            else:
                layer, outputs = nn.Identity(), width
            self.layers.append(layer)
            width = outputs
        self.head = nn.Linear(width * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        for (kind, _), layer in zip(self.steps, self.layers, strict=True):
            if kind == "concat":
                x = torch.cat([x, layer(x)], 1)
            elif kind == "residual":
                x = x + layer(x)
            elif kind == "gate":
                value, gate = layer(x).chunk(2, 1)
                x = value * gate.sigmoid()
            elif kind == "shuffle":
                b, c, h, w = x.shape
                x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
            else:
                x = layer(x)
        out: torch.Tensor = self.head(x.flatten(1))
        return out


KINDS = ["conv", "concat", "residual", "depthwise", "grouped", "gate", "shuffle"]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 4)), min_size=1, max_size=6))
def test_random_networks_hold_the_proof_property(steps: list[tuple[str, int]]) -> None:
    with seeded("random network"):
        net = RandomNet(steps)
    graph = _check(net)
    assert graph.groups
