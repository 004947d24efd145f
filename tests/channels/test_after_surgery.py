"""What users do with a pruned model: prune it again, copy it, compile it, train it, save and restore it."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, proof_error, prune
from automl_prune.errors import PlanError
from automl_prune.export import load_pruned, save_pruned
from tests.channels.nets import INPUTS, conv, head
from tests.channels.test_cutting import Partial


def build() -> nn.Module:
    return nn.Sequential(
        conv(3, 12), nn.BatchNorm2d(12), nn.ReLU(), Partial(12), conv(12, 12, groups=12), conv(12, 10), head(10)
    ).eval()


@pytest.fixture
def twice() -> tuple[nn.Module, Plan, nn.Module, Plan, nn.Module]:
    """A model, a plan, the pruned model, a plan of that, and the model pruned twice."""
    model = build()
    graph = ChannelGraph.trace(model, INPUTS)
    first = graph.plan({g.name: range(g.width - 1, g.width // 3, -1) for g in graph.groups})
    small = prune(model, first)
    again = ChannelGraph.trace(small, INPUTS)
    second = again.plan({g.name: range(0, g.width, 2) for g in again.groups})
    return model, first, small, second, prune(small, second)


def test_two_plans_are_one(twice: tuple[nn.Module, Plan, nn.Module, Plan, nn.Module]) -> None:
    model, first, _, second, smaller = twice
    composed = first.compose(second)
    once = prune(model, composed)
    states = zip(once.state_dict().values(), smaller.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in states)
    assert torch.equal(once(*INPUTS), smaller(*INPUTS))
    assert {n: c.value for n, c in composed.costs().items()} == {n: c.value for n, c in second.costs().items()}
    double = copy.deepcopy(model).double()
    assert proof_error(double, composed, tuple(x.double() for x in INPUTS)) < 1e-10


def test_a_model_pruned_twice_is_restored_into_the_first_factory(
    twice: tuple[nn.Module, Plan, nn.Module, Plan, nn.Module], tmp_path: Path
) -> None:
    _, first, _, second, smaller = twice
    save_pruned(tmp_path, smaller, first.compose(second))
    restored = load_pruned(tmp_path, build())
    assert torch.equal(restored(*INPUTS), smaller(*INPUTS))
    assert restored[3].passed == smaller[3].passed  # type: ignore[index]  # a number that no tensor shows


def test_plans_of_other_models_do_not_compose(twice: tuple[nn.Module, Plan, nn.Module, Plan, nn.Module]) -> None:
    _, first, _, second, _ = twice
    with pytest.raises(PlanError, match="not of the model that the first one gives"):
        second.compose(first)


def test_copies_compile_and_train(twice: tuple[nn.Module, Plan, nn.Module, Plan, nn.Module]) -> None:
    smaller = twice[4]
    expected = smaller(*INPUTS)
    assert torch.equal(copy.deepcopy(smaller)(*INPUTS), expected)
    torch.compiler.reset()
    compiled = torch.compile(smaller, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*INPUTS), expected)
    smaller.train()
    smaller(*INPUTS).square().sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in smaller.parameters())
