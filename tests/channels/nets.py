"""Small networks for the tests of channels, and the check that every one of them must pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from automl_prune.channels import ChannelGraph, proof_error, prove, prune
from automl_prune.costs import count_macs, count_memory, count_params

INPUTS = (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)),)


def check(model: nn.Module, inputs: tuple[torch.Tensor, ...] = INPUTS) -> ChannelGraph:
    """Trace, prove, halve everything, and compare costs and values; returns the proved graph."""
    model = model.double()
    doubles = tuple(t.double() for t in inputs)
    graph = prove(model, ChannelGraph.trace(model, doubles), doubles)
    plan = graph.plan({g.name: range(0, g.width, 2) for g in graph.groups})
    small = prune(model, plan)
    costs = {n: c.value for n, c in plan.costs().items()}
    assert costs["macs"] == count_macs(small, doubles)
    assert costs["params"] == count_params(small)
    assert costs["memory"] >= count_memory(small, doubles), "exact, or more where a size is only known to be free"
    assert proof_error(model, plan, doubles) < 1e-9
    return graph


def uneven_norms(model: nn.Module) -> None:
    """Give BatchNorms random scales, shifts and means, in place: fresh ones do nothing, and hide wrong indices."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.3)


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


class Net(nn.Module):
    """Layers by name and a forward given as a function of the module and its input."""

    def __init__(self, forward: Callable[[Any, Any], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.run(self, x)
        return result


def head(channels: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
