"""The predicted size of ONNX files against files that were written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.export.bundle import onnx_metadata, onnx_samples
from automl_prune.export.onnx import export_onnx
from automl_prune.export.size import file_size
from automl_prune.models import mobilenet_v2, resnet8
from automl_prune.seeding import seeded
from automl_prune.tasks.classification import Classification


@pytest.mark.parametrize(
    "factory",
    [
        lambda: resnet8(width=8, in_channels=1),  # norms folded into convolutions
        lambda: mobilenet_v2(width=0.25, in_channels=1),
        lambda: nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 36, 24), nn.Linear(24, 10)),
    ],
)
def test_a_files_size_is_known_before_it_is_written(
    factory: object, digits_task: Classification, tmp_path: Path
) -> None:
    with seeded("size"):
        model = factory().eval()  # type: ignore[operator]  # a lambda
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):  # the exporter drops biases that are zero
                nn.init.normal_(module.bias)
                assert module.running_mean is not None
                module.running_mean.normal_()
        graph = ChannelGraph.trace(model, digits_task.example_inputs)
        predicted = file_size(model, graph, digits_task)
        samples, metadata = onnx_samples(digits_task), onnx_metadata(digits_task)
        plan = graph.plan({g.name: range(int(torch.randint(1, g.width + 1, ()))) for g in graph.groups})
        path = tmp_path / "pruned.onnx"
        export_onnx(prune(model, plan), samples, path, metadata=metadata)
        size = path.stat().st_size
        assert size <= predicted.at(plan.widths) <= 1.005 * size + 64


def test_a_cost_that_was_added_is_one_of_every_plan(digits_task: Classification) -> None:
    model = resnet8(width=4, in_channels=1)
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    more = graph.with_cost("size", graph.params)
    assert more.plan({}).costs()["size"].value == graph.dense_costs["params"]
    assert "size" not in graph.plan({}).costs()
    assert more.digest == graph.digest
