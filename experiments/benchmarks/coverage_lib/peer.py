"""The same model pruned by Torch-Pruning 1.6.1, as its documentation shows, and judged by the same oracle.

``tp.pruner.BasePruner`` walks the groups of its ``DependencyGraph`` and halves each at random; layers that give the
model's output are ignored, as its users name them. It, rather than bare groups, because it keeps grouped convolutions
rectangular. Nothing is written for single models.
"""

from __future__ import annotations

import copy
from importlib.metadata import version
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from automl_prune.channels import ChannelGraph
from automl_prune.costs import count_params
from automl_prune.seeding import seeded
from coverage_lib import oracle
from coverage_lib.models import CLASSES, Entry
from coverage_lib.ours import Report, build, same_shapes, step, timed, trainable


def available() -> str | None:
    """Torch-Pruning's version, None when it is not installed."""
    try:
        return version("torch-pruning")
    except ModuleNotFoundError:  # also of importlib.metadata
        return None


def measure(entry: Entry, report: Report) -> None:
    """Measure one model."""
    import torch_pruning as tp

    with seeded("coverage", entry.name):
        model = build(entry)
    inputs = entry.inputs(2, seed=1)
    report({"params": count_params(model)})
    dense = copy.deepcopy(model).double()
    small = copy.deepcopy(dense)
    ignored = output_layers(small, inputs)
    doubles = tuple(t.double() for t in inputs)
    with seeded("coverage", "peer"):
        with timed(report, "trace"):
            pruner = tp.pruner.BasePruner(
                small, doubles if len(doubles) > 1 else doubles[0], importance=tp.importance.RandomImportance(),
                pruning_ratio=0.5, ignored_layers=ignored,
            )  # fmt: skip
        report({"traced": True})
        oracle.tag(small)
        with timed(report, "apply"):
            groups = 0
            for group in pruner.step(interactive=True):
                group.prune()
                groups += 1
    kept = oracle.untag(small, oracle.floats(dense))
    report({"groups": groups, "pruned": True, "params_left": count_params(small)})
    step(report, "forward", lambda: same_shapes(dense, small, doubles))
    step(report, "oracle", lambda: oracle.judge(dense, small, kept, tuple(t[:1] for t in doubles)))
    step(report, "backward", lambda: trainable(dense, small, doubles))


def output_layers(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """The layers whose channels are the model's output: found by our trace where it can, else by their width."""
    modules = dict(model.named_modules())
    found: list[Any] = [m for m in modules.values() if isinstance(m, nn.Linear) and m.out_features == CLASSES]
    found += [m for m in modules.values() if isinstance(m, _ConvNd) and m.out_channels == CLASSES]
    try:
        graph = ChannelGraph.trace(model.float(), inputs)
        names = [s.name for s in graph.skipped if "model's output" in s.reason]
        found += [modules[name] for name in names if name in modules and modules[name] not in found]
    except Exception:  # ours fails on this model; the widths have to do
        pass
    finally:
        model.double()
    return found
