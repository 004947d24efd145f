"""Proof by comparison: what it must find, whatever the draws, and what it must not mistake for an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prove, prune
from automl_prune.channels.proof import DRAWS, random_part
from tests.channels.nets import INPUTS, Net, check, conv, head

NAMES = ("conv1", "stem", "a", "layer3", "f7")


def _proved(net: nn.Module) -> ChannelGraph:
    doubles = tuple(t.double() for t in INPUTS)
    return prove(net.double(), ChannelGraph.trace(net, doubles), doubles)


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 64])
def test_every_channel_is_removed_in_one_draw_of_a_pair_and_kept_in_the_other(width: int) -> None:
    groups: Any = {name: SimpleNamespace(width=width) for name in NAMES}
    first, second = (random_part(groups, NAMES, draw) for draw in range(2))
    assert DRAWS % 2 == 0
    for name in NAMES:
        if width == 1:
            assert first[name] == second[name] == [0]
        else:
            assert sorted(first[name] + second[name]) == list(range(width))
            assert min(len(first[name]), len(second[name])) >= min(2, width // 2)
    if width == 64:
        assert len({len(part) for part in first.values()}) > 1, "one ratio for all would hide a coupling"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [4, 8])
def test_a_channel_that_the_forward_pass_moves_by_its_number_is_found(name: str, width: int) -> None:
    layers = {name: conv(3, width), "second": conv(width, 6), "head": head(6)}
    graph = _proved(Net(lambda m, x: m.head(m.second(getattr(m, name)(x).roll(1, 1))), **layers))
    assert list(graph.widths) == ["second"]
    assert any(skip.name == name and "proof failed" in skip.reason for skip in graph.skipped)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_right_is_protected(name: str) -> None:
    layers = {name: conv(3, 8), "second": conv(8, 6), "head": head(6)}
    graph = check(Net(lambda m, x: m.head(m.second(getattr(m, name)(x).flip(1))), **layers))
    assert graph.widths == {name: 8, "second": 6}


class Mere(nn.Module):
    """Holds three numbers that equal a width, of which the forward pass needs one."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = self.num_classes = self.width = 8
        self.first, self.head = conv(3, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return cast(torch.Tensor, self.head(y.view(len(y), self.width, -1).mean(2)))


def test_numbers_that_only_equal_a_width_stay() -> None:
    model = Mere().double()
    inputs = (torch.randn(2, 3, 4, 4).double(),)
    graph = prove(model, ChannelGraph.trace(model, inputs), inputs)
    small = prune(model, graph.plan({"first": [0, 1, 2]}))
    assert [getattr(small, name) for name in ("width", "image_size", "num_classes")] == [3, 8, 8]
    assert small(*inputs).shape == (2, 8)
