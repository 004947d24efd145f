"""Counts of a built model beside what its plan says."""

from __future__ import annotations

import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.costs import Cost, contradiction, count_costs


def test_counts_of_a_pruned_model_are_what_its_plan_says() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)).eval()
    inputs = (torch.zeros(2, 1, 8, 8),)
    plan = ChannelGraph.trace(model, inputs).plan({"0": range(3)})
    counted = count_costs(prune(model, plan), inputs)
    assert counted["macs"] == 36 * (3 * 9 + 3 * 4)
    assert counted["params"] == 3 * 9 + 3 * 4
    assert contradiction(counted, plan.costs()) is None


def test_what_contradicts_a_plan_is_named() -> None:
    planned = {name: Cost(name, 100, 200) for name in ("macs", "params", "memory")}
    exact = {"macs": 100, "params": 100, "memory": 100}
    assert contradiction(exact, planned) is None
    assert contradiction({**exact, "memory": 90}, planned) is None, "the plan's is an upper bound"
    assert contradiction({**exact, "memory": 101}, planned) == "has 101 memory, its plan says 100"
    assert contradiction({**exact, "params": 99}, planned) == "has 99 params, its plan says 100"
