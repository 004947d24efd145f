"""The same model pruned by Torch-Pruning 1.6.1, as its documentation shows, and judged by the same oracle.

``tp.pruner.BasePruner`` walks the groups of its ``DependencyGraph`` and halves each at random; layers that give the
model's output are ignored, as its users name them. It, rather than bare groups, because it keeps grouped convolutions
rectangular. Attention modules with a ``qkv`` layer are described to it as in its example for timm; nothing else is
written for single models.
"""

from __future__ import annotations

import copy
from contextlib import suppress
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
from coverage_lib.ours import build, cut_share, same_shapes, step, timed, trainable
from coverage_lib.runs import Report


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
    packed = [module for module in small.modules() if isinstance(getattr(module, "qkv", None), nn.Linear)]
    attention = [module for module in packed if hasattr(module, "num_heads")]
    with seeded("coverage", "peer"):
        with timed(report, "trace"):
            pruner = tp.pruner.BasePruner(
                small, doubles if len(doubles) > 1 else doubles[0], importance=tp.importance.RandomImportance(),
                pruning_ratio=0.5, ignored_layers=ignored,
                num_heads={module.qkv: module.num_heads for module in attention},
            )  # fmt: skip
        report({"traced": True})
        oracle.tag(small)
        with timed(report, "apply"):
            groups = 0
            for group in pruner.step(interactive=True):
                group.prune()
                groups += 1
            for module in attention:
                module.num_heads = pruner.num_heads[module.qkv]
                module.head_dim = module.qkv.out_features // (3 * module.num_heads)
                module.attn_dim = module.num_heads * module.head_dim
    kept = oracle.untag(small, oracle.floats(dense))
    report({"groups": groups, "pruned": True, "params_left": count_params(small)})
    report({"cut_share": cut_share(dense, small)})
    step(report, "forward", lambda: same_shapes(dense, small, doubles))
    step(report, "oracle", lambda: oracle.judge(dense, small, kept, tuple(t[:1] for t in doubles)))
    step(report, "backward", lambda: trainable(dense, small, doubles))


def output_layers(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[nn.Module]:
    """The layers whose channels are the model's output, as a user names them.

    By their width, by our trace where it works, and by the peer's own graph: whatever is tied to an output.
    """
    import torch_pruning as tp

    modules = dict(model.named_modules())
    found: list[Any] = [m for m in modules.values() if isinstance(m, nn.Linear) and m.out_features == CLASSES]
    found += [m for m in modules.values() if isinstance(m, _ConvNd) and m.out_channels == CLASSES]
    with suppress(Exception):  # where ours fails, the others have to do
        graph = ChannelGraph.trace(copy.deepcopy(model).float(), inputs)
        found += [modules[s.name] for s in graph.skipped if "model's output" in s.reason and s.name in modules]
    with suppress(Exception):  # the measurement proper will meet it again
        twin = copy.deepcopy(model)
        names = {module: name for name, module in twin.named_modules()}
        groups = tp.DependencyGraph().build_dependency(twin, tuple(t.double() for t in inputs)).get_all_groups()
        for group in groups:
            layers = [dep.target.module for dep, _ in group]
            if any(isinstance(layer, tp.ops._OutputOp) for layer in layers):
                found += [modules[names[m]] for m in layers if isinstance(m, (nn.Linear, _ConvNd)) and m in names]
    return list(dict.fromkeys(found))
