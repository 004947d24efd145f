"""Convolutions and matrix products: channels are read along one weight axis and made along another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from automl_prune.channels.provenance import NONE, IntArray, Labels, Provenance
from automl_prune.channels.rules.call import Call, rule

aten = torch.ops.aten


@rule(aten.convolution, aten._convolution, aten.cudnn_convolution, aten.mkldnn_convolution)
def convolution(p: Provenance, call: Call) -> None:
    """The input's channels are the weight's input axis; the result's are the weight's output axis.

    In a grouped convolution every convolution group keeps as many channels as the others: equal positions are
    tied. In a depthwise one each filter belongs to its channel.
    """
    x, weight, out = call.args[0], call.args[1], call.outputs[0]
    bias, transposed = call.argument(2, "bias"), bool(call.argument(6, "transposed", False))
    groups = int(call.argument(8, "groups", 1))
    read_axis, made_axis = (0, 1) if transposed else (1, 0)
    read, made = p.on(weight, read_axis), p.on(weight, made_axis)
    incoming = p.on(x, 1)
    around = _around(p, x, out)
    computed = x if transposed else out
    beside = [around.get(d, np.full(computed.shape[d], NONE)) for d in range(computed.dim()) if d != 1]
    depthwise = groups > 1 and groups == x.shape[1]
    filters = _filters(incoming, read, made, transposed=transposed) if depthwise else [read, made]
    _contract(p, int(np.prod(weight.shape[2:])), [*filters, *beside])

    if depthwise:
        produced = _depthwise(p, incoming, weight, read, made, transposed=transposed)
    elif transposed:
        p.tie_parts(read, groups, "a grouped convolution")
        _read_channels(p, incoming, read)
        produced = np.tile(made, groups)
    else:
        p.tie_parts(made, groups, "a grouped convolution")
        for part in incoming.reshape(groups, -1):
            _read_channels(p, part, read)
        p.tie_parts(incoming, groups, "a grouped convolution")
        produced = made
    if not depthwise:
        p.produce(made)
    if isinstance(bias, torch.Tensor):
        produced = p.tie(produced, p.on(bias, 0), "a convolution's bias")
    p.assign(out, Labels({**around, 1: produced}, True))


def _around(p: Provenance, x: torch.Tensor, out: torch.Tensor) -> dict[int, IntArray]:
    """Labels beside the channel dimension: kept in the batch; channels laid out as space are convolved over."""
    kept: dict[int, IntArray] = {}
    for dim, array in p.of(x).dims.items():
        if dim == 1:
            continue
        if dim > 1 and out.shape[dim] != x.shape[dim]:
            p.protect(array, "a convolution treats them as space and changes its size")
            continue
        if dim > 1:
            p.span(array, "a convolution over channels")
        kept[dim] = array
    return kept


def _contract(p: Provenance, unlabelled: int, axes: Sequence[IntArray]) -> None:
    """Record a cost; axes without labels go into the coefficient."""
    labelled = [axis for axis in axes if (axis >= 0).any()]
    for axis in axes:
        if not (axis >= 0).any():
            unlabelled *= len(axis)
    p.contract(unlabelled, labelled)


def _filters(incoming: IntArray, read: IntArray, made: IntArray, *, transposed: bool) -> list[IntArray]:
    """The weight axes of a depthwise convolution as they count: a kernel spread over the channels is as long as these.

    A kernel expanded or repeated to the number of channels has no labels there.
    """
    if transposed:
        return [np.maximum(read, incoming), made]
    return [read, np.maximum(made, np.repeat(incoming, len(made) // len(incoming)))]


def _depthwise(
    p: Provenance,
    incoming: IntArray,
    weight: torch.Tensor,
    read: IntArray,
    made: IntArray,
    *,
    transposed: bool,
) -> IntArray:
    where = "a depthwise convolution"
    p.claim(incoming)
    if transposed:  # weight (channels, multiplier, ...): axis 0 is the channel, axis 1 must stay
        p.protect(made, f"{where} has several fixed outputs per channel")
        return np.repeat(p.tie(incoming, read, where), weight.shape[1])
    multiplier = weight.shape[0] // len(incoming)
    return p.tie(np.repeat(incoming, multiplier), made, where)


def _read_channels(p: Provenance, incoming: IntArray, read: IntArray) -> None:
    """Tie incoming channels to the weight axis that reads them; an axis that reads something else must stay."""
    p.consume(read)
    fixed = (incoming < 0) & (read >= 0)
    if fixed.any():
        p.protect(read[fixed], "the layer reads the model's input or values that are no channels")
    real = incoming >= 0
    p.tie(incoming[real], read[real], "a layer")
    if p.is_spanned(read):  # a weight that was normalised over these channels is not zero where its parameter is
        p.span(incoming, "a layer", exact=True)
        p.span(read, "a layer", exact=True)


@rule(aten.mm, aten.bmm, aten.addmm, aten.baddbmm)
def matmul(p: Provenance, call: Call) -> None:
    """The contracted dimensions are tied; the result keeps the others."""
    has_bias = call.func.overloadpacket in (aten.addmm, aten.baddbmm)
    a, b = (call.args[1], call.args[2]) if has_bias else (call.args[0], call.args[1])
    out = call.outputs[0]
    left, right = p.on(a, a.dim() - 1), p.on(b, b.dim() - 2)
    rows, columns = p.on(a, a.dim() - 2), p.on(b, b.dim() - 1)
    dims = {out.dim() - 2: rows, out.dim() - 1: columns}
    batch = [p.tie(p.on(a, 0), p.on(b, 0), call.name)] if a.dim() == 3 else []
    if batch:
        dims[0] = batch[0]
    _contract(p, 1, [*batch, rows, left if (left >= 0).any() else right, columns])
    a_given, b_given = p.of(a).activation, p.of(b).activation
    if a_given and b_given:
        p.tie(left, right, call.name)
        p.span(left, call.name, exact=True)
        p.span(right, call.name, exact=True)
    elif b_given:
        _read_channels(p, right, left)
        p.produce(rows)
    else:  # as in a linear layer, the second factor is the weight
        _read_channels(p, left, right)
        p.produce(columns)
    if has_bias:
        bias = call.args[0]
        for dim in range(bias.dim()):
            at = dim + out.dim() - bias.dim()
            if bias.shape[dim] == out.shape[at] and out.shape[at] > 1:
                dims[at] = p.tie(dims[at], p.on(bias, dim), "a bias")
    p.assign(out, Labels(dims, a_given or b_given))


ATTENTION = (
    aten._scaled_dot_product_flash_attention_for_cpu, aten._scaled_dot_product_flash_attention,
    aten._scaled_dot_product_efficient_attention, aten._scaled_dot_product_cudnn_attention,
    aten._scaled_dot_product_fused_attention_overrideable,
)  # fmt: skip
"""The implementations of ``scaled_dot_product_attention``; its plain one is seen as matrix products."""


@rule(*ATTENTION)
def attention(p: Provenance, call: Call) -> None:
    """Queries and keys (batch, heads, tokens, width) are contracted over their width, which also sets the scale.

    Values that are as wide are narrowed with them: torch leaves the fused operator where widths come to differ, and
    then holds the matrix of all pairs of tokens.
    """
    query, key, value = call.args[:3]
    last = query.dim() - 1
    tokens = [query.shape[last - 1], key.shape[last - 1]]
    if key.shape[1] not in (1, query.shape[1]):  # a width narrowed alone would leave the fused operator, and its memory
        p.protect_all(map(p.of, (query, key, value)), "attention shares keys and values between its heads")
        p.contract(int(np.prod([*query.shape[: last - 1], *tokens])) * (query.shape[last] + value.shape[last]), [])
        p.assign(call.outputs[0], Labels({}, activation=True))
        return
    inner = [p.on(query, last), p.on(key, last)]
    scaled = call.kwargs.get("scale") is None
    made = p.on(value, last)
    p.tie_all([*inner, made] if value.shape[last] == query.shape[last] else inner, "attention")
    for array in inner:
        p.span(array, "attention's scale", exact=not scaled)
    around = [p.tie_all((p.on(t, dim) for t in (query, key, value)), "attention") for dim in range(last - 1)]
    for axis in (inner[0] if (inner[0] >= 0).any() else inner[1], made):
        _contract(p, int(np.prod(tokens)), [*around, axis])
    dims = {**dict(enumerate(around)), last: made}
    p.assign(call.outputs[0], Labels(dims, activation=True))
