"""The model families a user brings: traced, proved, cut in half, and exactly what the silenced dense model computes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, proof_error, prove, prune, slice_model
from automl_prune.channels.proof import TOLERANCE
from automl_prune.costs import count_macs, count_memory, count_params
from automl_prune.errors import PlanError
from automl_prune.seeding import seeded
from tests.channels.nets import uneven_norms

FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 64),
    "resnet50": (lambda: torchvision.models.resnet50(num_classes=10), 64),
    "vgg11_bn": (lambda: torchvision.models.vgg11_bn(num_classes=10, init_weights=False), 32),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 64),
    "mobilenet_v3_small": (lambda: torchvision.models.mobilenet_v3_small(num_classes=10), 64),
    "densenet": (lambda: torchvision.models.DenseNet(8, (2, 3), 16, num_classes=10), 64),
    "shufflenet_v2_x0_5": (lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10), 64),
    "resnext": (
        lambda: torchvision.models.ResNet(
            torchvision.models.resnet.Bottleneck, [1, 1, 1, 1], 10, groups=4, width_per_group=8
        ),
        64,
    ),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[torch.Tensor], ChannelGraph]:
    factory, size = FAMILIES[request.param]
    with seeded("family", request.param):
        model = factory()
        uneven_norms(model)
        inputs = (torch.randn(2, 3, size, size),)
    return model, inputs, ChannelGraph.trace(model, inputs)


def _half(graph: ChannelGraph) -> Plan:
    generator = torch.Generator().manual_seed(0)
    return graph.plan(
        {g.name: torch.randperm(g.width, generator=generator)[: -(-g.width // 2)].tolist() for g in graph.groups}
    )


def test_only_the_output_is_protected(family: tuple[nn.Module, tuple[torch.Tensor], ChannelGraph]) -> None:
    model, inputs, graph = family
    proved = prove(model, graph, inputs)
    assert [group.name for group in proved.groups] == [group.name for group in graph.groups]
    assert {skipped.reason for skipped in proved.skipped} == {"they are the model's output"}


def test_half_of_everything_equals_the_silenced_model(
    family: tuple[nn.Module, tuple[torch.Tensor], ChannelGraph],
) -> None:
    model, inputs, graph = family
    before = copy.deepcopy(model.state_dict())
    plan = _half(graph)
    doubles = (inputs[0].double(),)
    assert proof_error(copy.deepcopy(model).double(), plan, doubles) < 1e-9
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_costs_equal_independent_counts(
    family: tuple[nn.Module, tuple[torch.Tensor], ChannelGraph],
) -> None:
    model, inputs, graph = family
    assert graph.dense_costs == {
        "macs": count_macs(model, inputs),
        "params": count_params(model),
        "memory": count_memory(model, inputs),
    }
    plan = _half(graph)
    small = prune(model, plan)
    assert {name: cost.value for name, cost in plan.costs().items()} == {
        "macs": count_macs(small, inputs),
        "params": count_params(small),
        "memory": count_memory(small, inputs),
    }


def test_the_pruned_model_trains_and_restores(
    family: tuple[nn.Module, tuple[torch.Tensor], ChannelGraph],
) -> None:
    model, inputs, graph = family
    plan = _half(graph)
    small = prune(model, plan).train()
    small(torch.cat([inputs[0], inputs[0]])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    restored = slice_model(copy.deepcopy(model), plan.slices)
    restored.load_state_dict(small.state_dict())
    assert torch.equal(restored.eval()(inputs[0]), copy.deepcopy(small).eval()(inputs[0]))


def test_proof_sees_a_wrong_index(family: tuple[nn.Module, tuple[torch.Tensor], ChannelGraph]) -> None:
    """Shift one consumer's index map by one channel: shapes stay right, values do not."""
    model, inputs, graph = family
    model, inputs = copy.deepcopy(model).double(), (inputs[0].double(),)
    group = next(g for g in graph.groups if g.width >= 8 and any(m.role == "consumer" for m in g.members))
    consumer = next(m for m in group.members if m.role == "consumer")
    shifted = replace(consumer, index=torch.from_numpy(consumer.index).roll(1, 0).numpy())
    wrong = replace(group, members=tuple(shifted if m is consumer else m for m in group.members))
    broken = replace(graph, groups=tuple(wrong if g is group else g for g in graph.groups))
    plan = broken.plan({group.name: range(0, group.width, 3)})
    assert proof_error(model, plan, inputs) > TOLERANCE[torch.float64]
    right = graph.plan({group.name: range(0, group.width, 3)})
    assert proof_error(model, right, inputs) < TOLERANCE[torch.float64]


def test_a_plan_of_another_model_is_refused() -> None:
    inputs = (torch.randn(1, 3, 32, 32),)
    graph = ChannelGraph.trace(torchvision.models.resnet18(num_classes=10), inputs)
    with pytest.raises(PlanError, match="another model"):
        prune(torchvision.models.resnet34(num_classes=10), graph.plan({}))
