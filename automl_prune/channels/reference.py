"""The dense model as if some channels did not exist: what a pruned model is compared with.

Two things make a channel disappear without touching any shape. Every weight that reads it is zero. And an operator
that looks across channels (a norm, a mean, softmax, a product of two activations) computes from the channels that
are left, as the labels say which those are. The pruned model knows nothing of labels: when both agree, the labels
are right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from automl_prune.channels.plan import Plan
from automl_prune.channels.provenance import IntArray, Provenance
from automl_prune.channels.rules import ATTENTION, Call
from automl_prune.channels.trace import entering, labelled_run

aten = torch.ops.aten


def silenced_outputs(model: nn.Module, plan: Plan, inputs: tuple[torch.Tensor, ...]) -> Any:
    """What the dense model returns when the channels that the plan removes do not exist.

    Args:
        model: The dense model, in the mode it is to run in; its weights are changed during the call and put back.
        plan: What is removed.
        inputs: Positional inputs on the model's device.
    """
    removed = [group for group in plan.graph.groups if len(plan.kept[group.name]) < group.width]
    across = any(group.spanned for group in removed)
    with torch.no_grad(), silenced(model, plan):
        if not across:
            return model(*inputs)
        provenance = Provenance(model)
        with entering(model, provenance):
            return labelled_run(model, inputs, provenance, compacting(provenance, removed_labels(provenance, plan)))


@contextmanager
def silenced(model: nn.Module, plan: Plan) -> Iterator[None]:
    """Inside, every weight that reads a channel the plan removes is zero."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    saved: dict[str, torch.Tensor] = {}
    try:
        for group in plan.graph.groups:
            gone = sorted(set(range(group.width)) - set(plan.kept[group.name]))
            for member in group.with_role("consumer") if gone else ():
                tensor = tensors[member.parameter].data
                saved.setdefault(member.parameter, tensor.clone())
                positions = torch.from_numpy(member.index[gone].reshape(-1)).to(tensor.device)
                tensor.index_fill_(member.axis, positions, 0)
        yield
    finally:
        for name, tensor in saved.items():
            tensors[name].data.copy_(tensor)


def removed_labels(provenance: Provenance, plan: Plan) -> NDArray[np.bool_]:
    """Whether each label belongs to a removed channel; shape (labels,)."""
    starts = {(axis.parameter, axis.axis): axis.start for axis in provenance.axes}
    removed = np.zeros(provenance.size, dtype=bool)
    for group in plan.graph.groups:
        gone = np.setdiff1d(np.arange(group.width), plan.kept[group.name])
        for member in group.members:
            removed[starts[member.parameter, member.axis] + member.index[gone]] = True
    return removed


def compacting(p: Provenance, removed: NDArray[np.bool_]) -> Callable[[Call], None]:
    """Computes every operator that looks across removed channels anew, from those that are left."""

    def stays(labels: IntArray) -> NDArray[np.bool_]:
        return (labels < 0) | ~removed[np.maximum(labels, 0)]

    def compact(value: Any, spanned: set[int]) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(compact(item, spanned) for item in value)
        if not isinstance(value, torch.Tensor):
            return value
        for dim, labels in p.of(value).dims.items():
            if not spanned.isdisjoint(labels.tolist()) and not stays(labels).all():
                value = _narrow(value, dim, stays(labels))
        return value

    def on_call(call: Call) -> None:
        if not p.spanned or stays(np.concatenate(p.spanned)).all():
            return
        spanned = set(np.concatenate(p.spanned).tolist())
        args = [compact(argument, spanned) for argument in call.args]
        computed = _anew(call, args)
        small = computed if isinstance(computed, (tuple, list)) else [computed]
        for out, values in zip(call.outputs, [v for v in small if isinstance(v, torch.Tensor)], strict=False):
            _spread(out, values, [stays(p.on(out, dim)) for dim in range(out.dim())])

    return on_call


def _narrow(tensor: torch.Tensor, dim: int, stays: NDArray[np.bool_]) -> torch.Tensor:
    return tensor.index_select(dim, torch.from_numpy(np.flatnonzero(stays)).to(tensor.device))


def _anew(call: Call, args: list[Any]) -> Any:
    """What the operator returns for compacted arguments, with the sizes that some take beside their tensors."""
    packet = call.func.overloadpacket
    if packet in ATTENTION:  # another implementation may suit the new sizes; its other outputs are for gradients
        names = [argument.name for argument in call.func._schema.arguments]
        given = {**dict(zip(names, args, strict=False)), **call.kwargs}
        mask, causal = given.get("attn_mask", given.get("attn_bias")), given.get("is_causal", False)
        query, key, value = args[:3]
        scale = given.get("scale")
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scale)
    if packet in (aten.native_layer_norm, aten._fused_rms_norm):
        args[1] = list(args[0].shape[-len(args[1]) :])
    if packet is aten.native_group_norm:
        args[4] = args[0].shape[1]
    return call.func(*args, **call.kwargs)


def _spread(out: torch.Tensor, values: torch.Tensor, stays: list[NDArray[np.bool_]]) -> None:
    """Write the values to the positions that stay, and zero to the others."""
    out.zero_()
    places = [
        torch.from_numpy(np.flatnonzero(kept) if values.shape[d] < out.shape[d] else np.arange(len(kept)))
        for d, kept in enumerate(stays)
    ]
    if out.dim():
        out[tuple(torch.meshgrid(*(place.to(out.device) for place in places), indexing="ij"))] = values
    else:
        out.copy_(values)
