"""Small networks that broke other pruners, each as a named test."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from automl_prune.channels import Call, ChannelGraph, Provenance, prove, prune, rule
from automl_prune.errors import ModelError, PlanError
from tests.channels.nets import INPUTS, Net, check, conv, head


def test_one_output_channel_is_not_depthwise() -> None:
    net = Net(lambda m, x: m.head(m.b(m.a(x)) * m.a(x)), a=conv(3, 8), b=conv(8, 1), head=head(8))
    assert [g.name for g in check(net).groups] == ["a"]


def test_depthwise_with_multiplier() -> None:
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 16, groups=8), nn.ReLU(), conv(16, 6), head(6))
    graph = check(net)
    small = prune(net, graph.plan({"0": range(4)}))
    depthwise = small[2]  # type: ignore[index]  # a Sequential
    assert (depthwise.groups, depthwise.in_channels, depthwise.out_channels) == (4, 4, 8)


@pytest.mark.parametrize("learnt", [False, True])
@pytest.mark.parametrize("spread", [lambda k, n: k.expand(n, -1, -1, -1), lambda k, n: k.repeat(n, 1, 1, 1)])
@pytest.mark.parametrize("function", [F.conv2d, F.conv_transpose2d])
def test_one_kernel_spread_over_the_channels(function: Any, spread: Any, learnt: bool) -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        return m.head(m.b(function(y, spread(m.kernel, y.shape[1]), padding=1, groups=y.shape[1])))

    net = Net(forward, a=conv(3, 8), b=conv(8, 6), head=head(6))
    kernel = torch.rand(1, 1, 3, 3)
    net.kernel = nn.Parameter(kernel) if learnt else nn.Buffer(kernel)
    assert check(net).widths == {"a": 8, "b": 6}


def test_grouped_convolution_keeps_equal_parts() -> None:
    net = nn.Sequential(conv(3, 16), nn.ReLU(), conv(16, 24, groups=4), nn.ReLU(), conv(24, 4), head(4))
    graph = check(net)
    assert graph.widths == {"0": 4, "2": 6, "4": 4}


def test_transposed_and_grouped_transposed_convolutions() -> None:
    net = nn.Sequential(
        conv(3, 8),
        nn.ConvTranspose2d(8, 12, 2, 2),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 8, 2, 2, groups=2),
        head(8),
    )
    assert check(net).groups


def test_concat_then_flatten() -> None:
    net = Net(
        lambda m, x: m.fc(torch.cat([m.a(x), F.relu(m.b(x))], 1).flatten(1)),
        a=conv(3, 4),
        b=conv(3, 6),
        fc=nn.Linear(640, 5),
    )
    graph = check(net)
    assert graph.widths == {"a": 4, "b": 6}
    assert {m.index.shape[1] for g in graph.groups for m in g.members if m.parameter == "fc.weight"} == {64}


def test_view_by_batch_size() -> None:
    net = Net(lambda m, x: m.fc(m.a(x).view(x.size(0), -1)), a=conv(3, 4), fc=nn.Linear(256, 5))
    assert check(net).widths == {"a": 4}


def test_chunk_keeps_halves_equal() -> None:
    def forward(m: Any, x: Any) -> Any:
        a, b = m.a(x).chunk(2, 1)
        return m.head(m.b(a * torch.sigmoid(b)))

    assert check(Net(forward, a=conv(3, 12), b=conv(6, 4), head=head(4))).widths == {"a": 6, "b": 4}


def test_channel_shuffle() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        b, c, h, w = y.shape
        y = y.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return m.head(m.b(y))

    assert check(Net(forward, a=conv(3, 12), b=conv(12, 4), head=head(4))).groups


def test_pixel_shuffle() -> None:
    net = nn.Sequential(conv(3, 16), nn.PixelShuffle(2), conv(4, 6), head(6))
    assert check(net).widths == {"0": 4, "2": 6}


def test_tied_weights_stay_tied() -> None:
    net = Net(
        lambda m, x: m.head(m.b(m.a(m.b(m.a(m.stem(x)))))),
        stem=conv(3, 6),
        a=conv(6, 8),
        b=conv(8, 6),
        head=head(6),
    )
    net.again = net.a
    graph = check(net)
    small = prune(net, graph.plan({g.name: range(2) for g in graph.groups}))
    assert small.a is small.again


def test_zero_padded_shortcut_protects_only_the_padded() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = F.relu(m.a(x))
        return m.head(F.relu(F.pad(y, (0, 0, 0, 0, 2, 2)) + m.b(y)))

    graph = check(Net(forward, a=conv(3, 8), b=conv(8, 12), head=head(12)))
    assert graph.widths == {"a": 8}
    assert [(s.name, s.width) for s in graph.skipped if "number is fixed" in s.reason] == [("b", 4)]


def test_in_place_operations_and_shape_assertions() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = F.relu(m.a(x), inplace=True)
        y += m.b(x)
        assert y.shape[2:] == x.shape[2:]
        return m.head(y.mul_(0.5))

    assert check(Net(forward, a=conv(3, 8), b=conv(3, 8), head=head(8))).widths == {"a": 8}


def test_squeeze_and_excitation() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        return m.head(y * torch.sigmoid(m.up(F.relu(m.down(y.mean((2, 3), keepdim=True))))))

    graph = check(Net(forward, a=conv(3, 12), down=conv(12, 4, 1), up=conv(4, 12, 1), head=head(12)))
    assert graph.widths == {"a": 12, "down": 4}


def test_a_size_in_the_forward_is_found_by_proof() -> None:
    net = Net(lambda m, x: m.fc(m.b(m.a(x)).view(-1, 256)), a=conv(3, 6), b=conv(6, 4), fc=nn.Linear(256, 5))
    graph = check(net)
    assert graph.widths == {"a": 6}
    (reason,) = [s.reason for s in graph.skipped if s.name == "b"]
    assert "proof failed" in reason


def test_an_operator_without_a_rule_protects_and_is_named() -> None:
    net = Net(lambda m, x: m.head(m.b(torch.cumprod(m.a(x), 1))), a=conv(3, 6), b=conv(6, 4), head=head(4))
    graph = check(net)
    assert graph.widths == {"b": 4}
    assert any(s.name == "a" and "cumprod" in s.reason for s in graph.skipped)


def test_auxiliary_head_of_training_mode_is_pruned_too() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        out = m.head(y)
        return out + m.aux(y) if m.training else out

    net = Net(forward, a=conv(3, 8), head=head(8), aux=head(8))
    graph = check(net)
    small = prune(net, graph.plan({"a": range(3)})).train()
    assert small(INPUTS[0].double()).shape == (2, 5)


def test_unused_layers_are_skipped_with_the_reason() -> None:
    net = Net(lambda m, x: m.head(m.a(x)), a=conv(3, 8), head=head(8), unused=conv(3, 9))
    assert "unused" not in check(net).widths


def test_modes_and_weights_of_the_model_are_untouched() -> None:
    net = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 4), head(4)).train()
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
    graph = ChannelGraph.trace(nn.Sequential(conv(3, 8), head(8)), INPUTS)
    with pytest.raises(PlanError, match=message):
        graph.plan(kept)


def test_a_rule_of_ones_own() -> None:
    @torch.library.custom_op("automl_prune_tests::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    operator: Any = torch.ops.automl_prune_tests.double
    net = Net(lambda m, x: m.head(operator(m.a(x))), a=conv(3, 6), head=head(6))
    doubles = tuple(t.double() for t in INPUTS)
    (skipped,) = [s for s in ChannelGraph.trace(net.double(), doubles).skipped if s.name == "a"]
    assert "no rule is known for the operator double; add one with channels.rule" in skipped.reason

    @rule(operator)
    def double_rule(provenance: Provenance, call: Call) -> None:
        provenance.assign(call.outputs[0], provenance.of(call.args[0]))

    with torch.no_grad():  # the operator has no derivative
        assert ChannelGraph.trace(net, doubles).widths == {"a": 6}
    with pytest.raises(ValueError, match="has a rule already"):
        rule(operator)(double_rule)


def test_a_rule_that_fails_protects_and_is_named() -> None:
    @torch.library.custom_op("automl_prune_tests::triple", mutates_args=())
    def triple(x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    operator: Any = torch.ops.automl_prune_tests.triple

    @rule(operator)
    def triple_rule(provenance: Provenance, call: Call) -> None:
        raise KeyError("axis")

    net = Net(lambda m, x: m.head(m.b(operator(m.a(x)))), a=conv(3, 6), b=conv(6, 4), head=head(4))
    with torch.no_grad():  # the operator has no derivative
        graph = check(net)
    assert graph.widths == {"b": 4}
    (skipped,) = [s for s in graph.skipped if s.name == "a"]
    assert "the rule of triple failed: KeyError: 'axis' (channels/test_structure.py:" in skipped.reason


def test_nothing_keeps_a_dead_model_alive() -> None:
    net = nn.Sequential(conv(3, 8), head(8))
    graph = prove(net, ChannelGraph.trace(net, INPUTS), INPUTS)
    small = prune(net, graph.plan({"0": [1, 2]}))
    dead: list[Any] = [weakref.ref(net), weakref.ref(small), weakref.ref(net[0].weight)]
    del net, small
    gc.collect()
    assert [reference() for reference in dead] == [None, None, None]


def test_a_model_that_is_random_in_evaluation_is_protected_with_the_reason() -> None:
    net = Net(lambda m, x: m.head(m.a(x) + torch.randn(1, dtype=x.dtype)), a=conv(3, 6), head=head(6))
    proved = prove(net, ChannelGraph.trace(net, INPUTS), INPUTS)
    assert not proved.groups
    assert any("is its forward pass random?" in s.reason for s in proved.skipped)


def test_a_model_that_cannot_be_copied_says_so() -> None:
    net = Net(lambda m, x: m.a(x), a=conv(3, 6))
    net.handle = (i for i in range(3))  # type: ignore[assignment]  # what users do
    with pytest.raises(ModelError, match="cannot be copied"):
        ChannelGraph.trace(net, INPUTS)


class ConstantWidth(nn.Module):
    """Three groups: the second is viewed with a number, the third is free."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 6), conv(6, 8), conv(8, 10), conv(10, 12), conv(12, 7)])
        self.head = head(7)

    def forward(self, x: torch.Tensor) -> Any:
        for number, layer in enumerate(self.layers):
            x = layer(x)
            if number in (1, 3):
                x = x.reshape(len(x), (8, 12)[number // 2], 64).reshape(len(x), (8, 12)[number // 2], 8, 8)
        return self.head(x)


def test_bisection_protects_only_the_groups_at_fault() -> None:
    graph = check(ConstantWidth())
    assert graph.widths == {"layers.0": 6, "layers.2": 10, "layers.4": 7}
    failed = {s.name: s.reason for s in graph.skipped if "proof failed" in s.reason}
    assert set(failed) == {"layers.1", "layers.3"}
    assert all("channels/test_structure.py:" in reason for reason in failed.values())
