"""Stages by resolution."""

from __future__ import annotations

from dataclasses import replace

import torch

from automl_prune.channels import ChannelGraph
from automl_prune.models import resnet8
from automl_prune.projection.stages import stages_of
from tests.projection.problems import chain


def test_a_stage_for_each_resolution() -> None:
    graph = chain([4, 4, 4, 4], [64, 64, 16, 64, 1])
    assert stages_of(graph) == {"conv0": "stage1", "conv1": "stage1", "conv2": "stage2", "conv3": "stage1"}


def test_a_group_without_a_resolution_belongs_to_the_stage_before_it() -> None:
    graph = chain([4, 4, 4], [64, 16, 16, 1])
    unknown = replace(graph, terms=tuple(term for term in graph.terms if term.name != "conv1"))
    assert stages_of(unknown) == {"conv0": "stage1", "conv1": "stage1", "conv2": "stage2"}


def test_a_residual_network_has_its_three_stages() -> None:
    graph = ChannelGraph.trace(resnet8(num_classes=10, in_channels=1).eval(), (torch.randn(1, 1, 16, 16),))
    found = stages_of(graph)
    assert found["conv1"] == found["layer1.0.conv1"] == "stage1"
    assert {stage for name, stage in found.items() if name.startswith("layer3")} == {"stage3"}
    assert len(set(found.values())) == 3
