"""Random small networks hold the proof property: cut to random halves, they compute what the silenced ones do.

A network is a drawn list of steps; each step is one idiom of real models, on any number of channels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from automl_prune.channels import ChannelGraph, proof_error, prove, prune, slice_model
from automl_prune.costs import count_macs, count_memory, count_params
from automl_prune.seeding import seeded

SIDE = 4


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


class Neutral(nn.GroupNorm):
    """A group norm that can be told not to normalise: then silencing channels is exact, and index maps show."""

    normalises = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.normalises:
            return super().forward(x)
        shape = (1, -1, 1, 1)
        return x * self.weight.view(shape) + self.bias.view(shape)


class Step(nn.Module):
    """Layers and numbers by name, a forward given as a function of the module and its input, the width it returns."""

    def __init__(self, outputs: int, run: Callable[[Any, Any], Any], **parts: nn.Module | int) -> None:
        super().__init__()
        self.outputs, self.run = outputs, run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.run(self, x)
        return result


def _convolution(width: int, size: int) -> Step:
    return Step(4 * size, lambda m, x: F.silu(m.conv(x)), conv=conv(width, 4 * size))


def _batch_norm(width: int, size: int) -> Step:
    return Step(width, lambda m, x: F.relu(m.norm(x), inplace=True), norm=nn.BatchNorm2d(width))


def _group_norm(width: int, size: int) -> Step:
    return Step(width, lambda m, x: m.norm(x), norm=Neutral(_divisor(width, size), width))


def _grouped(width: int, size: int) -> Step:
    groups = _divisor(width, size)
    return Step(2 * width, lambda m, x: torch.tanh(m.conv(x)), conv=conv(width, 2 * width, groups=groups))


def _depthwise(width: int, size: int) -> Step:
    outputs = width * (1 + size % 2)
    return Step(outputs, lambda m, x: m.conv(x), conv=conv(width, outputs, groups=width))


def _transposed(width: int, size: int) -> Step:
    groups = _divisor(width, size)
    layer = nn.ConvTranspose2d(width, 4 * groups, 3, padding=1, groups=groups)
    return Step(4 * groups, lambda m, x: m.conv(x), conv=layer)


def _residual(width: int, size: int) -> Step:
    inner = nn.Sequential(conv(width, 4 * size), nn.Hardswish(), conv(4 * size, width))
    return Step(width, lambda m, x: x + m.inner(x), inner=inner)


def _dense_concat(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        return torch.cat([m.a(x), x, m.b(x)], 1)

    return Step(width + 6 * size, run, a=conv(width, 4 * size, 1), b=conv(width, 2 * size))


def _gate(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        value, gate = m.conv(x).chunk(2, 1)
        return value * gate.sigmoid()

    return Step(4 * size, run, conv=conv(width, 8 * size, 1))


def _parts(width: int, size: int) -> Step:
    """Res2Net's idiom: split, process one part after the other, concatenate."""

    def run(m: Any, x: Any) -> Any:
        parts = list(torch.split(m.first(x), m.part, 1))
        for number, layer in enumerate(m.layers):
            parts[number + 1] = layer(parts[number] + parts[number + 1])
        return torch.cat(parts, 1)

    layers = nn.ModuleList(conv(4, 4) for _ in range(size))
    return Step(4 * (size + 1), run, first=conv(width, 4 * (size + 1)), layers=layers, part=4)


def _halves(width: int, size: int) -> Step:
    """ShuffleNet's idiom: half of the channels pass, the other half is processed, then they are interleaved."""

    def run(m: Any, x: Any) -> Any:
        a, b = m.first(x).chunk(2, dim=1)
        y = torch.cat((a, m.branch(b)), dim=1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)

    return Step(8 * size, run, first=conv(width, 8 * size), branch=conv(4 * size, 4 * size))


def _pixel_shuffle(width: int, size: int) -> Step:
    shuffle = nn.Sequential(conv(width, 8 * size, 1), nn.PixelShuffle(2), nn.AvgPool2d(2))
    return Step(2 * size, lambda m, x: m.layers(x), layers=shuffle)


def _pixel_unshuffle(width: int, size: int) -> Step:
    layers = nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelUnshuffle(2), conv(4 * width, 4 * size, 1))
    return Step(4 * size, lambda m, x: m.layers(x), layers=layers)


def _excitation(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        return x * torch.sigmoid(m.up(F.relu(m.down(x.mean((2, 3), keepdim=True)))))

    return Step(width, run, down=conv(width, 2 * size, 1), up=conv(2 * size, width, 1))


def _excitation_linear(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        y = F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)
        return x * m.up(F.relu(m.down(y))).sigmoid()[:, :, None, None].expand_as(x)

    return Step(width, run, down=nn.Linear(width, 2 * size), up=nn.Linear(2 * size, width))


def _shared(width: int, size: int) -> Step:
    return Step(width, lambda m, x: m.conv(F.gelu(m.conv(x))), conv=conv(width, width))


def _padded_shortcut(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        return F.pad(x, (0, 0, 0, 0, size, size)) + m.conv(x)

    return Step(width + 2 * size, run, conv=conv(width, width + 2 * size))


def _ghost(width: int, size: int) -> Step:
    """GhostNet's idiom: a concatenation cut to a fixed number of channels."""

    def run(m: Any, x: Any) -> Any:
        y = m.primary(x)
        return torch.cat([y, m.cheap(y)], 1)[:, : 8 * size - 2]

    return Step(8 * size - 2, run, primary=conv(width, 4 * size, 1), cheap=conv(4 * size, 4 * size, groups=4 * size))


def _channels_last(width: int, size: int) -> Step:
    mlp = nn.Sequential(nn.Linear(width, 4 * size), nn.GELU(), nn.Linear(4 * size, width))
    return Step(width, lambda m, x: x + m.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), mlp=mlp)


def _tokens(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = m.qkv(tokens).reshape(n, h * w, 3, size, m.part).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = (0.5 * q @ k.transpose(-2, -1)).softmax(-1) @ v
        return x + m.out(mixed.transpose(1, 2).reshape(n, h * w, -1)).transpose(1, 2).reshape(n, c, h, w)

    return Step(width, run, qkv=nn.Linear(width, 12 * size), out=nn.Linear(4 * size, width), part=4)


def _selection(width: int, size: int) -> Step:
    """SKNet's idiom: two branches weighted by a softmax over the branches."""

    def run(m: Any, x: Any) -> Any:
        y = torch.stack([m.a(x), m.b(x)], 1)
        weights = m.choose(y.sum(1).mean((2, 3), keepdim=True))
        weights = weights.view(x.size(0), 2, -1, 1, 1).softmax(1)
        return (y * weights).sum(1)

    return Step(4 * size, run, a=conv(width, 4 * size), b=conv(width, 4 * size, 1), choose=conv(4 * size, 8 * size, 1))


def _one_channel(width: int, size: int) -> Step:
    return Step(width, lambda m, x: x * torch.sigmoid(m.conv(x)), conv=conv(width, 1))


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gamma.view(1, -1, 1, 1)


def _layer_scale(width: int, size: int) -> Step:
    return Step(width, lambda m, x: x + m.scale(m.conv(x)), conv=conv(width, width, 1), scale=_LayerScale(width))


def _layer_norm(width: int, size: int) -> Step:
    """ConvNeXt's idiom: the norm sees all channels of a position, and scale and shift follow them."""

    def run(m: Any, x: Any) -> Any:
        return x + m.conv(m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))

    return Step(width, run, norm=nn.LayerNorm(width), conv=conv(width, width, 1))


class _Standardised(nn.Conv2d):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / self.weight.std((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight, self.bias, padding=1)


def _standardised(width: int, size: int) -> Step:
    return Step(4 * size, lambda m, x: F.silu(m.conv(x)), conv=_Standardised(width, 4 * size, 3))


def _neighbours(width: int, size: int) -> Step:
    """ECA's idiom: a convolution along the channels themselves."""

    def run(m: Any, x: Any) -> Any:
        gate = m.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * gate.view(x.size(0), -1, 1, 1)

    return Step(width, run, conv=nn.Conv1d(1, 1, 3, padding=1, bias=False))


def _uneven(width: int, size: int) -> Step:
    """Parts of fixed, different widths."""

    def run(m: Any, x: Any) -> Any:
        first, rest = torch.split(m.conv(x), [m.first, m.rest], 1)
        return torch.cat([rest.tanh(), first], 1)

    return Step(8 * size, run, conv=conv(width, 8 * size, 1), first=2 * size, rest=6 * size)


def _partial(width: int, size: int) -> Step:
    """FasterNet's idiom: some channels are convolved in place, the others pass."""

    def run(m: Any, x: Any) -> Any:
        y = m.first(x)
        return torch.cat([m.conv(y[:, : m.part]), y[:, m.part :]], 1)

    return Step(4 * size, run, first=conv(width, 4 * size, 1), conv=conv(2 * size, 2 * size), part=2 * size)


def _einsum(width: int, size: int) -> Step:
    def run(m: Any, x: Any) -> Any:
        value, weight = m.value(x), m.weight(x).flatten(2).softmax(-1)
        context = torch.einsum("bcn,bkn->bck", value.flatten(2), weight)
        return x + m.out(torch.einsum("bck,bkn->bcn", context, weight).view_as(value))

    return Step(
        width, run, value=conv(width, 4 * size, 1), weight=conv(width, 2 * size, 1), out=conv(4 * size, width, 1)
    )


class _Position(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, SIDE * SIDE, width))
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = x.flatten(2).transpose(1, 2) + self.position
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        result: torch.Tensor = (tokens + mixed).transpose(1, 2).reshape(x.shape)
        return result


def _attention(width: int, size: int) -> Step:
    return Step(width, lambda m, x: m.body(x), body=_Position(width))


def _shifted(width: int, size: int) -> Step:
    """Space moved, cut into windows and put together again (Swin's idiom) around a pointwise layer."""

    def run(m: Any, x: Any) -> Any:
        n, c, h, w = x.shape
        y = torch.roll(x, (1, -1), (2, 3)).permute(0, 2, 3, 1)
        windows = y.view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        y = m.mlp(windows).view(n, h // 2, w // 2, 2, 2, -1).transpose(2, 3).reshape(n, h, w, -1)
        return torch.roll(y.permute(0, 3, 1, 2), (-1, 1), (2, 3))

    return Step(4 * size, run, mlp=nn.Linear(width, 4 * size))


def _divisor(width: int, size: int) -> int:
    """The largest divisor of the width that is at most size + 1."""
    return max(number for number in range(1, size + 2) if width % number == 0)


STEPS: dict[str, Callable[[int, int], Step]] = {
    function.__name__.strip("_"): function
    for function in (
        _convolution, _batch_norm, _group_norm, _grouped, _depthwise, _transposed, _residual, _dense_concat, _gate,
        _parts, _halves, _pixel_shuffle, _pixel_unshuffle, _excitation, _excitation_linear, _shared, _padded_shortcut,
        _ghost, _channels_last, _tokens, _selection, _one_channel, _layer_scale, _layer_norm, _standardised,
        _neighbours, _uneven, _partial, _einsum, _attention, _shifted,
    )
}  # fmt: skip

FIXED = ("attention", "ghost", "padded_shortcut", "uneven")
"""Steps that hold numbers of channels which need not follow a plan; what depends on them may be protected."""

Program = Sequence[tuple[str, int]]


def _network(program: Program, head: str) -> nn.Sequential:
    """A stem, the program's steps, and a classifier of three kinds; batch norms have lively statistics."""
    width, layers = 6, [conv(3, 6)]
    for name, size in program:
        step = STEPS[name](width, size)
        layers.append(step)  # type: ignore[arg-type]  # a list of modules
        width = step.outputs
    if head == "pool":
        tail: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5)]
    elif head == "flatten":
        tail = [nn.Flatten(), nn.Linear(width * SIDE * SIDE, 7), nn.ReLU(), nn.Linear(7, 5)]
    else:
        tail = [nn.ReLU6(), conv(width, 5, 1), nn.AdaptiveMaxPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers, *tail)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3)
    return model.double().eval()


def _check(program: Program, head: str) -> ChannelGraph:
    """Trace, prove, cut all groups to random halves, and compare values, costs, gradients and reloading."""
    inputs = (torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)).double(),)
    with seeded("random network", program, head):
        model = _network(program, head)
        fresh = _network(program, head)
    graph = prove(model, ChannelGraph.trace(model, inputs), inputs)
    generator = torch.Generator().manual_seed(2)
    plan = graph.plan(
        {g.name: torch.randperm(g.width, generator=generator)[: max(1, g.width // 2)].tolist() for g in graph.groups}
    )
    small = prune(model, plan)
    assert {name: cost.value for name, cost in plan.costs().items()} == {
        "macs": count_macs(small, inputs),
        "params": count_params(small),
        "memory": count_memory(small, inputs),
    }
    neutral = copy.deepcopy(model)
    for module in neutral.modules():
        if isinstance(module, Neutral):
            module.normalises = False
    assert proof_error(neutral, plan, inputs) < 1e-9
    assert proof_error(model, plan, inputs) < 1e-9
    restored = slice_model(fresh, plan.slices, plan.sizes)
    restored.load_state_dict(small.state_dict())
    assert torch.equal(restored(inputs[0]), small(inputs[0]))
    small.train()(inputs[0]).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    return graph


@pytest.mark.parametrize("name", sorted(STEPS))
def test_every_step_alone_is_pruned_and_proved(name: str) -> None:
    graph = _check([(name, 2), ("convolution", 1)], "pool")
    assert graph.groups
    if name not in FIXED:
        assert [skipped.reason for skipped in graph.skipped] == ["they are the model's output"]


@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(1, 3)), min_size=1, max_size=6),
    st.sampled_from(["pool", "flatten", "convolution"]),
)
def test_random_networks_hold_the_proof_property(program: list[tuple[str, int]], head: str) -> None:
    _check(program, head)
