"""One model measured with automl-prune: traced, proved, cut in half, and everything a user does with the result."""

from __future__ import annotations

import copy
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from automl_prune.channels import ChannelGraph, Plan, proof_error, prove, prune, slice_model
from automl_prune.channels.proof import random_part
from automl_prune.costs import count_macs, count_params
from automl_prune.errors import AutomlPruneError
from automl_prune.export.onnx import export_onnx
from automl_prune.seeding import generator, seeded
from coverage_lib import oracle
from coverage_lib.models import Entry
from coverage_lib.preparation import enliven
from coverage_lib.runs import Report


def measure(entry: Entry, report: Report, *, onnx: bool = True) -> None:
    """Measure one model; a step that fails is reported as such and the next one runs where it can."""
    with seeded("coverage", entry.name):
        model = build(entry)
        fresh = entry.build()
    inputs = entry.inputs(2, seed=1)
    report({"params": count_params(model), "gradients": len(trained(model, inputs))})
    with timed(report, "trace"):
        graph = ChannelGraph.trace(model, inputs)
    report({"traced": True, "found": len(graph.groups)})
    with timed(report, "proof"):
        graph = prove(model, graph, inputs)
    report({"groups": len(graph.groups), "skipped": top_reasons(graph)} | shares(model, graph))
    plan = graph.plan(random_halves(graph))
    with timed(report, "apply"):
        small = prune(model, plan)
    report({"pruned": True, "params_left": count_params(small), "cut_share": cut_share(model, small)})
    step(report, "forward", lambda: same_shapes(model, small, inputs))
    step(report, "backward", lambda: trainable(model, small, inputs))
    step(report, "reload", lambda: reloads(fresh, small, plan, inputs))
    step(report, "deepcopy", lambda: copies(small, inputs))
    step(report, "costs", lambda: costs_agree(graph, plan, model, small, inputs))
    doubles = tuple(t[:1].double() for t in inputs)
    step(report, "proof_error", lambda: proof_error(copy.deepcopy(model).double(), plan, doubles))
    step(report, "own_widths", lambda: own_widths(model, graph, doubles))
    step(report, "oracle", lambda: independent(model, plan, doubles))
    if onnx:
        step(report, "onnx", lambda: exports(model, small, inputs))


def build(entry: Entry) -> nn.Module:
    """A fresh model with lively random weights, in evaluation mode."""
    model = entry.build()
    enliven(model, entry.inputs(4))
    return model


@contextmanager
def timed(report: Report, name: str) -> Iterator[None]:
    """Report wall and processor seconds of a block, also when it fails; names the stage meanwhile."""
    report({"stage": name})
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        seconds = {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}
        report({f"{name}_seconds": seconds})


def step(report: Report, name: str, action: Callable[[], Any]) -> None:
    """Run one check: True (or what it returns) when it holds, else the message."""
    report({"stage": name})
    try:
        report({name: action()})
    except Exception as error:  # the point is to see what models raise
        report({name: f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"})


def random_halves(graph: ChannelGraph) -> dict[str, list[int]]:
    """Half of every group, drawn at random."""
    halves = {}
    for group in graph.groups:
        order = torch.randperm(group.width, generator=generator("coverage", group.name))
        halves[group.name] = order[: max(1, group.width // 2)].tolist()
    return halves


def own_widths(model: nn.Module, graph: ChannelGraph, doubles: tuple[torch.Tensor, ...]) -> float:
    """Proof error when every group keeps a share of its own: equal halves hide couplings between widths."""
    plan = graph.plan(random_part(graph, graph.widths, draw=2))
    return proof_error(copy.deepcopy(model).double(), plan, doubles)


def shares(model: nn.Module, graph: ChannelGraph) -> dict[str, float]:
    """Prunable share of the output channels of all convolutions and linear layers, and of convolutions alone."""
    positions: dict[tuple[str, int], set[int]] = {}
    for group in graph.groups:
        for member in group.members:
            positions.setdefault((member.parameter, member.axis), set()).update(np.unique(member.index).tolist())
    names = {id(p): name for name, p in model.named_parameters()}
    prunable: Counter[str] = Counter()
    total: Counter[str] = Counter()
    seen = set()
    for module in model.modules():
        if isinstance(module, (_ConvNd, nn.Linear)) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            kind = "conv" if isinstance(module, _ConvNd) else "linear"
            axis = 1 if isinstance(module, _ConvTransposeNd) else 0
            found = positions.get((names.get(id(module.weight), ""), axis), set())
            prunable[kind] += len(found)
            total[kind] += module.weight.shape[axis]
    every = sum(total.values())
    result = {"share": sum(prunable.values()) / every} if every else {}
    return result | ({"conv_share": prunable["conv"] / total["conv"]} if total["conv"] else {})


def cut_share(dense: nn.Module, small: nn.Module) -> float:
    """Share of all output channels of convolutions and linear layers that sit in layers which lost some."""
    cut = total = 0
    after = dict(small.named_modules())
    for name, layer in dense.named_modules():
        if isinstance(layer, (_ConvNd, nn.Linear)):
            axis = 1 if isinstance(layer, _ConvTransposeNd) else 0
            width, left = layer.weight.shape[axis], after[name].weight.shape[axis]
            total += width
            cut += width if left < width else 0
    return cut / total if total else 0.0


def top_reasons(graph: ChannelGraph, count: int = 3) -> list[str]:
    """The reasons that protect most channels, with how many."""
    widths: Counter[str] = Counter()
    for skipped in graph.skipped:
        widths[skipped.reason] += skipped.width
    return [f"{width} channels: {reason}" for reason, width in widths.most_common(count)]


def same_shapes(dense: nn.Module, small: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether the pruned model runs and its outputs are finite and of the dense model's shapes."""
    found, wanted = oracle.outputs(small, inputs), oracle.outputs(dense, inputs)
    if [t.shape for t in found] != [t.shape for t in wanted]:
        raise ValueError(f"outputs of shape {[tuple(t.shape) for t in found][:3]}")
    if not all(bool(torch.isfinite(t).all()) for t in found):
        raise ValueError("outputs are not finite")
    return True


def trained(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> set[str]:
    """Parameters that get a gradient from the sum of all outputs in training mode; works on a copy."""
    model = copy.deepcopy(model).train()
    leaves = [t for t in tree_leaves(model(*inputs)) if isinstance(t, torch.Tensor) and t.requires_grad]
    sum(t.sum() for t in leaves).backward()
    return {name for name, parameter in model.named_parameters() if parameter.grad is not None}


def trainable(dense: nn.Module, small: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether every parameter that is trained in the dense model is trained in the pruned one."""
    missing = trained(dense, inputs) - trained(small, inputs)
    if missing:
        raise ValueError(f"{len(missing)} parameters get no gradient any more, e.g. {min(missing)}")
    return True


def reloads(fresh: nn.Module, small: nn.Module, plan: Plan, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether the factory's fresh model, cut by the plan's slices, takes the pruned weights and computes the same."""
    restored = slice_model(fresh, plan.slices, plan.sizes)
    restored.load_state_dict(small.state_dict(), strict=True)
    for (_, target), (_, source) in zip(restored.named_buffers(), small.named_buffers(), strict=True):
        if target.shape != source.shape:
            raise ValueError(f"a buffer has shape {tuple(target.shape)}, not {tuple(source.shape)}")
    worst = oracle.difference(oracle.outputs(restored, inputs), oracle.outputs(small, inputs))
    if worst > 0:
        raise ValueError(f"the restored model differs by {worst:.1e}")
    return True


def copies(small: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether a deepcopy computes the same."""
    return oracle.difference(oracle.outputs(copy.deepcopy(small), inputs), oracle.outputs(small, inputs)) == 0


def costs_agree(graph: Any, plan: Any, dense: nn.Module, small: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool:
    """Whether the polynomials give what is counted independently, for the dense and the pruned model."""
    one = tuple(tensor[:1] for tensor in inputs)  # what runs once a batch would count by halves in a pair
    counted = [{"macs": count_macs(m, one), "params": count_params(m)} for m in (dense, small)]
    pruned = {name: cost.value for name, cost in plan.costs().items()}
    for stated, found in zip((graph.dense_costs, pruned), counted, strict=True):
        wrong = [f"{n} {stated[n]:.0f} instead of {v}" for n, v in found.items() if stated[n] != v]
        if wrong:
            raise ValueError("; ".join(wrong))
    return True


def independent(model: nn.Module, plan: Plan, doubles: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """The oracle's judgement of the plan's index maps."""
    dense = copy.deepcopy(model).double()
    tagged = copy.deepcopy(dense)
    oracle.tag(tagged)
    pruned = slice_model(tagged, plan.slices, plan.sizes)
    kept = oracle.untag(pruned, oracle.floats(dense))
    return oracle.judge(dense, pruned, kept, doubles)


def exports(dense: nn.Module, small: nn.Module, inputs: tuple[torch.Tensor, ...]) -> bool | str:
    """Whether ONNX Runtime computes the same to 1e-4; when not, whether it is the dense model's fault."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_onnx(small, inputs, Path(folder) / "model.onnx")
        except AutomlPruneError as error:
            try:
                export_onnx(dense, inputs, Path(folder) / "dense.onnx")
            except AutomlPruneError:
                return f"nor the dense model: {error}"[:300]
            raise
    return True


def exact(result: Mapping[str, Any]) -> bool:
    """Whether the oracle found the pruned model right to rounding."""
    return isinstance(result.get("oracle"), dict) and result["oracle"]["error"] <= 1e-8
