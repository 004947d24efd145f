"""Cuts in turn: slices between two plans, and groups as they lie in a pruned model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune, slice_model
from automl_prune.channels.narrowing import between, narrowed
from automl_prune.models import mobilenet_v2, resnet8
from automl_prune.seeding import generator, seeded


class Flattened(nn.Module):
    """A channel takes several positions of the linear layer, and is read at once by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1), nn.Linear(11 * 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.a(x).relu()
        out: torch.Tensor = self.c(torch.cat([first, self.b(first)], 1).flatten(1))
        return out


MODELS = {
    "resnet": lambda: resnet8(num_classes=10, in_channels=1, width=4),
    "mobilenet": lambda: mobilenet_v2(num_classes=10, in_channels=1, width=0.25),
    "flattened": Flattened,
}


def random_plans(graph: ChannelGraph, seed: int) -> tuple[Plan, Plan]:
    """A plan and a narrower one."""
    random = generator("plans", seed)
    wide, narrow = {}, {}
    for name, width in graph.widths.items():
        order = torch.randperm(width, generator=random).tolist()
        first = int(torch.randint(1, width + 1, (1,), generator=random))
        second = int(torch.randint(1, first + 1, (1,), generator=random))
        wide[name], narrow[name] = order[:first], order[:second]
    return graph.plan(wide), graph.plan(narrow)


@pytest.fixture(scope="module", params=list(MODELS))
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, ChannelGraph]:
    with seeded("traced"):
        model = MODELS[request.param]().eval()
    return model, ChannelGraph.trace(model, (torch.zeros(2, 1, 8, 8),))


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_two_cuts_in_turn_equal_the_last_one_alone(traced: tuple[nn.Module, ChannelGraph], seed: int) -> None:
    model, graph = traced
    before, after = random_plans(graph, seed)
    direct = prune(model, after).state_dict()
    in_turn = slice_model(prune(model, before), between(before, after), after.sizes).state_dict()
    assert direct.keys() == in_turn.keys()
    assert all(torch.equal(direct[name], in_turn[name]) for name in direct)
    assert not between(after, after)


def test_narrowed_groups_are_those_a_new_trace_finds(traced: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = traced
    plan = graph.plan({g.name: list(range(g.width))[1::2] or [0] for g in graph.groups})
    again = ChannelGraph.trace(prune(model, plan), (torch.zeros(2, 1, 8, 8),))
    for group in graph.groups:
        mine, found = narrowed(group, plan), again[group.name]
        assert mine.width == found.width == len(plan.kept[group.name])
        indices = {(member.parameter, member.axis): member.index for member in found.members}
        assert indices.keys() == {(member.parameter, member.axis) for member in mine.members}
        for member in mine.members:
            np.testing.assert_array_equal(member.index, indices[member.parameter, member.axis])
