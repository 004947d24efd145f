"""Operators that treat every position alone: labels that meet are tied."""

from __future__ import annotations

import torch

from automl_prune.channels.provenance import IntArray, Labels, Provenance
from automl_prune.channels.rules.call import Call, depends_on_input, rule

aten = torch.ops.aten


@rule(
    aten.copy_, aten.hardswish, aten.hardswish_, aten.prelu, aten._prelu_kernel, aten.rrelu_with_noise,
    aten.masked_fill, aten.masked_fill_, aten.log_sigmoid_forward, aten.clip, aten.clip_,
)  # fmt: skip  # pointwise, but not all are tagged so by torch
def pointwise(p: Provenance, call: Call) -> None:
    """Tie the labels that meet, under broadcasting; a dimension that is broadcast brings no labels."""
    tensors = call.tensors
    for out in call.outputs:
        dims: dict[int, IntArray] = {}
        for dim in range(out.dim()):
            meeting = [
                p.on(tensor, dim - out.dim() + tensor.dim())
                for tensor in tensors
                if dim - out.dim() + tensor.dim() >= 0 and tensor.shape[dim - out.dim()] == out.shape[dim]
            ]
            if any((array >= 0).any() for array in meeting):
                dims[dim] = p.tie_all(meeting, call.name)
        _guard_written_view(p, call, dims)
        made = all(p.of(tensor).made for tensor in tensors if tensor.dim())
        p.assign(out, Labels(dims, depends_on_input(p, tensors), made and not dims))


def _guard_written_view(p: Provenance, call: Call, dims: dict[int, IntArray]) -> None:
    """Writing channels into part of an unlabelled tensor: the whole tensor does not learn of them, so protect."""
    first = call.args[0] if call.args else None
    if isinstance(first, torch.Tensor) and call.name.endswith("_") and first._is_view() and not p.of(first).dims:
        for array in dims.values():
            p.protect(array, f"{call.name} writes them into a part of another tensor")


@rule(
    aten.clone, aten.contiguous, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh, aten.native_dropout,
    aten.dropout, aten.dropout_, aten.zeros_like, aten.ones_like, aten.empty_like, aten.rand_like, aten.randn_like,
    aten.full_like, aten.bernoulli, aten.bernoulli_, aten.uniform_, aten.normal_, aten.random_, aten.zero_,
    aten.fill_, aten.detach_, aten.positive,
)  # fmt: skip
def same_labels(p: Provenance, call: Call) -> None:
    """The result has the first argument's shape and labels."""
    source = p.of(call.args[0])
    for out in call.outputs:
        p.assign(out, source)


@rule(aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty_strided)
def new_like(p: Provenance, call: Call) -> None:
    """A new tensor: dimensions as long as the source's are taken to follow it, the others are free."""
    source, labels = call.args[0], p.of(call.args[0])
    for out in call.outputs:
        same = out.dim() == source.dim()
        dims = {d: a for d, a in labels.dims.items() if same and out.shape[d] == source.shape[d]}
        p.assign(out, Labels(dims, labels.activation, made=True))


def made_from_sizes(p: Provenance, call: Call) -> None:
    """No tensor went in (``zeros``, ``arange``): every dimension is free."""
    for out in call.outputs:
        p.assign(out, Labels({}, activation=False, made=True))
