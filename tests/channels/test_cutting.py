"""Splits, slices and sizes: equal parts stay equal, sizes taken from tensors follow, sizes written down are found."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import prune
from tests.channels.nets import INPUTS, Net, check, conv, head


def test_slices_into_equal_parts_stay_equal() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        half = y.shape[1] // 2
        return m.head(y[:, :half] * y[:, half:])

    assert check(Net(forward, a=conv(3, 8), head=head(4))).widths == {"a": 4}


def test_every_second_channel() -> None:
    net = Net(lambda m, x: m.head(m.a(x)[:, ::2] * m.a(x)[:, 1::2]), a=conv(3, 8), head=head(4))
    assert check(net).widths == {"a": 4}


def test_what_was_concatenated_is_taken_apart_by_the_tensors_sizes() -> None:
    def forward(m: Any, x: Any) -> Any:
        a, b = m.a(x), m.b(x)
        joined = torch.cat([a, b], 1).relu()
        first, second = joined.split([a.shape[1], b.shape[1]], 1)
        return m.head1(first) + m.head2(second) + m.head3(joined[:, : a.shape[1]])

    net = Net(forward, a=conv(3, 8), b=conv(3, 8), head1=head(8), head2=head(8), head3=head(8))
    assert check(net).widths == {"a": 8, "b": 8}  # two groups: nothing ties the parts


def test_a_free_dimension_stays_free_when_it_is_viewed() -> None:
    """EvoNorm's group statistics: expanded to a group's channels, then viewed as all of them."""

    def forward(m: Any, x: Any) -> Any:
        y = m.a(x)
        b, c, h, w = y.shape
        grouped = y.reshape(b, 2, c // 2, h, w)
        spread = grouped.std((2, 3, 4), keepdim=True).expand(grouped.shape).reshape(y.shape)
        return m.head(y / spread)

    assert check(Net(forward, a=conv(3, 8), head=head(8))).widths == {"a": 4}


class Partial(nn.Module):
    """A part of the channels is convolved, the rest passes (FasterNet, arXiv:2303.03667); sizes are attributes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.worked, self.passed = dim // 4, dim - dim // 4
        self.conv = conv(self.worked, self.worked)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        worked, passed = torch.split(x, [self.worked, self.passed], dim=1)
        return torch.cat([self.conv(worked), passed], 1)


def test_uneven_split_by_attributes() -> None:
    net = nn.Sequential(conv(3, 12), Partial(12), head(12))
    graph = check(net)
    assert sorted(graph.widths.values()) == [3, 3, 9]  # read by the part, made by it, passed by
    small = prune(net, graph.plan({name: range(2) for name in graph.widths}))
    part: Any = small[1]  # type: ignore[index]  # a Sequential
    assert (part.worked, part.passed) == (2, 2)


class Mixed(nn.Module):
    """Parts with kernels of their own (MixConv, arXiv:1907.09595); their sizes are one list, two of them equal."""

    def __init__(self) -> None:
        super().__init__()
        self.splits = [4, 4, 6]
        self.parts = nn.ModuleList(conv(c, c, 2 * i + 1, groups=c) for i, c in enumerate(self.splits))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([part(y) for part, y in zip(self.parts, torch.split(x, self.splits, 1), strict=True)], 1)


def test_sizes_in_a_list_follow() -> None:
    net = nn.Sequential(conv(3, 14), Mixed(), head(14))
    graph = check(net)
    assert sorted(graph.widths.values()) == [4, 4, 6]
    plan = graph.plan(dict(zip(graph.widths, [[0], [1, 2], [3, 4, 5]], strict=True)))
    small: Any = prune(net, plan)[1]  # type: ignore[index]  # a Sequential
    assert small.splits == [1, 2, 3]
    assert plan.to_json()["sizes"] == {"1": {"splits": [1, 2, 3]}}


def test_a_shape_held_as_a_whole_follows() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shape, self.scale = (8, 1, 1), nn.Parameter(torch.ones(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale.view(self.shape)

    net = nn.Sequential(conv(3, 8), Scale(), head(8))
    graph = check(net)
    assert graph.widths == {"0": 8}
    small: Any = prune(net, graph.plan({"0": [1, 4]}))[1]  # type: ignore[index]  # a Sequential
    assert small.shape == (2, 1, 1)


def test_uneven_split_by_numbers_is_protected_with_line_and_cure() -> None:
    def forward(m: Any, x: Any) -> Any:
        first, second = m.a(x).split([3, 5], 1)
        return m.head1(first) + m.head2(m.b(second))

    graph = check(Net(forward, a=conv(3, 8), b=conv(5, 6), head1=head(3), head2=head(6)))
    assert graph.widths == {"b": 6}
    reasons = [s.reason for s in graph.skipped if s.name == "a"]
    assert reasons
    assert all("proof failed" in r and "test_cutting.py:" in r and "take the size from" in r for r in reasons)


def test_operator_and_line_are_named() -> None:
    net = Net(lambda m, x: m.head(m.a(x)[:, [0, 2, 4]]), a=conv(3, 8), head=head(3))
    (reason,) = [s.reason for s in check(net).skipped if s.name == "a"]
    assert "index picks some of them by their number" in reason
    assert "channels/test_cutting.py:" in reason


def test_grouped_norm_then_shuffle_then_chunk() -> None:
    def forward(m: Any, x: Any) -> Any:
        y = torch.channel_shuffle(m.norm(m.a(x)), 2)
        left, right = y.chunk(2, 1)
        return m.head(left + m.b(right))

    net = Net(forward, a=conv(3, 16), norm=nn.GroupNorm(2, 16), b=conv(8, 8), head=head(8))
    assert sum(check(net).widths.values()) > 0


@pytest.mark.parametrize(
    "use",
    [
        lambda y: torch.roll(y, (1, 2), (2, 3)),
        lambda y: y.flip(3),
        lambda y: nn.functional.interpolate(y, scale_factor=2, mode="bilinear"),
        lambda y: nn.functional.pad(y, (1, 2, 0, 1)),
        lambda y: nn.functional.pad(y, (1, 1, 1, 1), mode="reflect"),
        lambda y: nn.functional.fold(nn.functional.unfold(y, 3, padding=1), y.shape[2:], 3, padding=1),
        lambda y: y.unfold(2, 2, 2).mean(-1),
        lambda y: y.flatten(2).transpose(1, 2).unflatten(1, (8, 8)).permute(0, 3, 1, 2),
        lambda y: y + torch.zeros(y.shape[1], 1, 1, dtype=y.dtype),
        lambda y: y * y.mean(1, keepdim=True).sigmoid().expand_as(y),
        lambda y: torch.stack([y, y.relu()], 1).amax(1),
        lambda y: torch.stack(y.unbind(3), 3),
        lambda y: torch.einsum("bchw,hk->bckw", y, torch.ones(8, 4, dtype=y.dtype)),
        lambda y: torch.fft.irfft2(torch.fft.rfft2(y)),
        lambda y: nn.functional.glu(torch.cat([y, y], 1), 1),
        lambda y: y.repeat(1, 1, 2, 1),
        lambda y: torch.where(y > 0, y, 0.1 * y),
        lambda y: y[:, :, torch.tensor([0, 3, 5])],
        lambda y: y[..., 1:, ::2],
        lambda y: nn.functional.pixel_unshuffle(y, 2).unflatten(1, (y.shape[1], 4)).sum(2),
    ],
)
def test_operators_that_leave_channels_free(use: Any) -> None:
    graph = check(Net(lambda m, x: m.head(m.b(use(m.a(x)))), a=conv(3, 8), b=conv(8, 6), head=head(6)))
    assert graph.widths == {"a": 8, "b": 6}


def test_several_inputs_and_outputs_in_containers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out, self.aux = conv(3, 8), conv(3, 8), conv(8, 4), conv(8, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
            z = self.a(x) + self.b(y)
            return {"out": self.out(z), "more": [self.aux(z), (z.mean(1),)]}

    assert check(Two(), (INPUTS[0], INPUTS[0] * 2)).widths == {"a": 8}
