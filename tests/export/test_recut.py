"""Graphs cut out of the dense model's against true exports of the pruned model: nodes, shapes, values, outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision
from onnx import numpy_helper
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.errors import PlanError
from automl_prune.export.kernels import layer_of_kernels
from automl_prune.export.recut import Recutter
from automl_prune.models import densenet_bc, resnet8, vgg11
from automl_prune.seeding import seeded
from tests.channels.nets import uneven_norms

BLOCKS = [[1, 8, 1, 1], [4, 16, 2, 2], [4, 24, 1, 2]]
"""Of a small MobileNetV2: expansion, width, repetitions, stride."""

FAMILIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet": (lambda: resnet8(10, 1, width=4), (2, 1, 8, 8)),
    "mobilenet": (lambda: torchvision.models.MobileNetV2(10, 0.5, BLOCKS), (2, 3, 16, 16)),
    "densenet": (lambda: densenet_bc(10, 1, depth=10), (2, 1, 8, 8)),
    "vgg": (lambda: vgg11(10, 1), (2, 1, 32, 32)),
    "shufflenet": (lambda: torchvision.models.ShuffleNetV2([2, 1, 1], [16, 32, 64, 96, 64], 10), (2, 3, 32, 32)),
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> tuple[nn.Module, ChannelGraph, tuple[torch.Tensor], Recutter]:
    factory, shape = FAMILIES[request.param]
    with seeded("recut", request.param):
        model = factory().eval()
        uneven_norms(model)
        inputs = (torch.randn(shape),)
    graph = ChannelGraph.trace(model, inputs)
    return model, graph, inputs, Recutter(model, graph, inputs)


def _arbitrary(graph: ChannelGraph) -> Plan:
    random = np.random.default_rng(1)
    kept = {g.name: random.permutation(g.width)[: random.integers(1, g.width, endpoint=True)] for g in graph.groups}
    return graph.plan({name: indices.tolist() for name, indices in kept.items()})


def test_a_cut_graph_is_the_exported_one_and_computes_what_the_pruned_model_does(
    family: tuple[nn.Module, ChannelGraph, tuple[torch.Tensor], Recutter], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, graph, inputs, recutter = family
    assert recutter.unfaithful is None
    plan = _arbitrary(graph)
    exported = onnx.load_from_string(recutter.export(plan))
    with monkeypatch.context() as patch:
        patch.setattr(Recutter, "export", lambda *_: pytest.fail("it was exported, not cut"))
        cut = onnx.load_from_string(recutter.cut(plan))
    assert list(cut.graph.node) == list(exported.graph.node)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in cut.graph.initializer}
    for tensor in exported.graph.initializer:
        np.testing.assert_array_equal(arrays.pop(tensor.name), numpy_helper.to_array(tensor))
    assert not arrays
    session = onnxruntime.InferenceSession(cut.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"input": inputs[0].numpy()})
    with torch.no_grad():
        expected = prune(model, plan)(*inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_widths_alone_give_a_file_of_the_same_shapes(
    family: tuple[nn.Module, ChannelGraph, tuple[torch.Tensor], Recutter],
) -> None:
    _, graph, _, recutter = family
    plan = _arbitrary(graph)
    by_plan, by_width = (
        {t.name: tuple(t.dims) for t in onnx.load_from_string(file).graph.initializer}
        for file in (recutter.cut(plan), recutter.at(plan.widths))
    )
    assert by_plan == by_width


def test_every_layer_with_multiply_accumulates_is_found_among_the_kernels(
    family: tuple[nn.Module, ChannelGraph, tuple[torch.Tensor], Recutter],
) -> None:
    _, graph, _, recutter = family
    nodes = onnx.load_from_string(recutter.dense).graph.node
    layers = layer_of_kernels(recutter.dense, recutter.parameters, [node.name for node in nodes])
    assert set(layers.values()) == {f"{term.name}.weight" for term in graph.terms}


def test_untrained_norms_and_equal_weights_are_cut_too() -> None:
    model = densenet_bc(10, 1, depth=10).eval()  # the exporter would merge its running statistics, all 0 and 1
    inputs = (torch.zeros(2, 1, 8, 8),)
    assert Recutter(model, ChannelGraph.trace(model, inputs), inputs).unfaithful is None


class ByWidth(nn.Module):
    """Does something else when it is narrow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.second(torch.relu(x) if x.shape[1] == 8 else torch.tanh(x))  # type: ignore[no-any-return]


def test_a_graph_that_changes_with_the_widths_is_exported_every_time_and_says_why() -> None:
    model, inputs = ByWidth().eval(), (torch.randn(2, 1, 8, 8),)
    graph = ChannelGraph.trace(model, inputs)
    recutter = Recutter(model, graph, inputs)
    assert recutter.unfaithful is not None
    assert "other nodes" in recutter.unfaithful
    found = onnx.load_from_string(recutter.at({"first": 3})).graph
    assert "Tanh" in {node.op_type for node in found.node}


def test_widths_that_do_not_fit_are_refused() -> None:
    model, inputs = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 2, 1)).eval(), (torch.randn(2, 1, 8, 8),)
    recutter = Recutter(model, ChannelGraph.trace(model, inputs), inputs)
    with pytest.raises(PlanError, match="outside"):
        recutter.at({"0": 9})
