"""Operators that compute one value from several positions: pools, reductions, norms, softmax.

Over batch and space they move labels unchanged. Over channels they compute something from all of them together
(``Provenance.span``): the pruned model computes it from those that are left.
"""

from __future__ import annotations

from typing import Any

import torch

from automl_prune.channels.provenance import IntArray, Labels, Provenance
from automl_prune.channels.rules.call import Call, Rule, rule, unknown
from automl_prune.channels.rules.pointwise import pointwise

aten = torch.ops.aten


def _spatial(rank: int) -> Rule:
    def keep_leading(p: Provenance, call: Call) -> None:
        source, labels = call.args[0], p.of(call.args[0])
        first = source.dim() - rank
        for dim, array in labels.dims.items():
            if dim >= first:
                p.protect(array, f"{call.name} treats them as space")
        for out in call.outputs:
            p.assign(out, Labels({d: a for d, a in labels.dims.items() if d < first}, labels.activation))

    return keep_leading


rule(
    aten.max_pool2d_with_indices, aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.reflection_pad2d, aten.replication_pad2d,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_nearest_exact2d,
    aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa, aten.grid_sampler_2d, aten.fractional_max_pool2d,
)(_spatial(2))  # fmt: skip
rule(
    aten.max_pool1d_with_indices, aten.max_pool1d, aten.adaptive_avg_pool1d, aten.avg_pool1d,
    aten.adaptive_max_pool1d, aten.upsample_nearest1d, aten.upsample_linear1d, aten.reflection_pad1d,
    aten.replication_pad1d,
)(_spatial(1))  # fmt: skip
rule(
    aten.max_pool3d_with_indices, aten.avg_pool3d, aten._adaptive_avg_pool3d, aten.adaptive_max_pool3d,
    aten.upsample_nearest3d, aten.upsample_trilinear3d, aten.replication_pad3d, aten.reflection_pad3d,
)(_spatial(3))  # fmt: skip


_SUMS = (aten.sum, aten.nansum)


@rule(
    aten.mean, *_SUMS, aten.amax, aten.amin, aten.var, aten.std, aten.var_mean, aten.std_mean, aten.logsumexp,
    aten.linalg_vector_norm, aten.norm,
)  # fmt: skip
def reduction(p: Provenance, call: Call) -> None:
    """Reduced dimensions lose their labels; channels that are reduced over are looked at together."""
    source, labels = call.args[0], p.of(call.args[0])
    position = 2 if call.func.overloadpacket in (aten.linalg_vector_norm, aten.norm) else 1
    given = call.argument(position, "dim")
    if isinstance(given, (torch.Tensor, bool)):  # var(x, unbiased) is over everything
        given = None
    reduced = _dims(given, source.dim())
    for dim in reduced & set(labels.dims):
        p.span(labels.dims[dim], call.name, exact=call.func.overloadpacket in _SUMS)
    for out in call.outputs:
        keeps = out.dim() == source.dim()
        dims = {
            d if keeps else d - sum(r < d for r in reduced): array
            for d, array in labels.dims.items()
            if d not in reduced
        }
        p.assign(out, Labels(dims, labels.activation))


def _dims(given: Any, rank: int) -> set[int]:
    if given is None or given == []:
        return set(range(rank))
    return {int(d) % rank for d in ([given] if isinstance(given, int) else given)}


@rule(
    aten._softmax, aten._log_softmax, aten.softmax, aten.log_softmax, aten._safe_softmax, aten.cumsum, aten.logcumsumexp
)
def along_dimension(p: Provenance, call: Call) -> None:
    """Positions along one dimension influence each other."""
    source, labels = call.args[0], p.of(call.args[0])
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    if dim in labels.dims:
        p.span(labels.dims[dim], call.name.strip("_"))
    for out in call.outputs:
        p.assign(out, labels)


@rule(aten.glu)
def glu(p: Provenance, call: Call) -> None:
    """Two halves of one dimension meet: they stay equally wide."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    dim = int(call.argument(1, "dim", -1)) % source.dim()
    dims = dict(labels.dims)
    if dim in dims:
        p.tie_parts(dims[dim], 2, call.name)
        dims[dim] = dims[dim][: out.shape[dim]]
    p.assign(out, Labels(dims, labels.activation))


@rule(aten._fft_r2c, aten._fft_c2r, aten._fft_c2c)
def fourier(p: Provenance, call: Call) -> None:
    """Transformed dimensions are space; the others are untouched."""
    source, labels = call.args[0], p.of(call.args[0])
    transformed = _dims(call.args[1], source.dim())
    for dim in transformed & set(labels.dims):
        p.protect(labels.dims[dim], f"{call.name} transforms them")
    dims = {d: array for d, array in labels.dims.items() if d not in transformed}
    p.assign(call.outputs[0], Labels(dims, labels.activation))


# --------------------------------------------------------------------------------------------------- norms


@rule(
    aten.native_batch_norm, aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update, aten._batch_norm_no_update, aten.cudnn_batch_norm, aten.miopen_batch_norm,
)  # fmt: skip
def batch_norm(p: Provenance, call: Call) -> None:
    """Scale, shift and running statistics follow the channels of dimension 1.

    With statistics of the batch it also looks across all other dimensions: how weights are standardised.
    """
    source, labels = call.args[0], p.of(call.args[0])
    vectors = [tensor for tensor in call.args[1:5] if isinstance(tensor, torch.Tensor)]
    array = p.tie_all([p.on(source, 1), *(p.on(tensor, 0) for tensor in vectors)], "batch norm")
    if any(argument is True for argument in call.args[3:6]):
        for dim, others in labels.dims.items():
            if dim != 1:
                p.span(others, "a norm")
    p.assign(call.outputs[0], Labels({**labels.dims, 1: array}, labels.activation))
    for statistic in call.outputs[1:]:
        if statistic.shape == array.shape:
            p.assign(statistic, Labels({0: array}, labels.activation))


@rule(aten.native_layer_norm, aten._fused_rms_norm)
def layer_norm(p: Provenance, call: Call) -> None:
    """Scale and shift follow the last dimensions; the norm looks across them."""
    source, shape, out = call.args[0], call.args[1], call.outputs[0]
    labels = p.of(source)
    dims, first = dict(labels.dims), source.dim() - len(shape)
    vectors = [tensor for tensor in call.args[2:4] if isinstance(tensor, torch.Tensor) and tensor.dim()]
    for dim in range(first, source.dim()):
        arrays = [p.on(source, dim), *(p.on(tensor, dim - first) for tensor in vectors)]
        if source.shape[dim] > 1 and any((array >= 0).any() for array in arrays):
            dims[dim] = p.tie_all(arrays, "layer norm")
            for array in arrays:
                p.span(array, "a norm")
    p.assign(out, Labels(dims, labels.activation))


@rule(aten.native_group_norm)
def group_norm(p: Provenance, call: Call) -> None:
    """Every group of the norm keeps as many channels as the others; the norm looks across each group."""
    source, labels = call.args[0], p.of(call.args[0])
    vectors = [tensor for tensor in call.args[1:3] if isinstance(tensor, torch.Tensor)]
    arrays = [p.on(source, 1), *(p.on(tensor, 0) for tensor in vectors)]
    array = p.tie_all(arrays, "group norm")
    p.tie_parts(array, int(call.argument(6, "group")), "group norm")
    for spanned in [*arrays, *(a for d, a in labels.dims.items() if d > 1)]:
        p.span(spanned, "a norm")
    p.assign(call.outputs[0], Labels({**labels.dims, 1: array}, labels.activation))


@rule(aten._weight_norm_interface, aten._weight_norm)
def weight_norm(p: Provenance, call: Call) -> None:
    """Direction and length of a weight: the length is of one axis, the norm looks across the others."""
    direction, length = call.args[:2]
    axis = int(call.argument(2, "dim", 0))
    dims: dict[int, IntArray] = dict(p.of(direction).dims)
    for dim, array in dims.items():
        if dim == axis:
            dims[dim] = p.tie(array, p.on(length, dim), "weight norm")
        else:
            p.span(array, "a norm")
    p.assign(call.outputs[0], Labels(dims, activation=False))


@rule(aten.max, aten.min)
def extreme(p: Provenance, call: Call) -> None:
    """Of two tensors: pointwise, and tagged so; of one along a dimension: the places it returns are numbers."""
    if len(call.tensors) > 1:
        return pointwise(p, call)
    if len(call.args) < 2:
        return unknown(p, call)
    source, labels = call.args[0], p.of(call.args[0])
    dim = int(call.args[1]) % source.dim()
    if dim in labels.dims:
        p.protect(labels.dims[dim], f"{call.name} returns the number of one of them")
    keeps = bool(call.argument(2, "keepdim", False))
    for out in call.outputs:
        dims = {d if keeps or d < dim else d - 1: a for d, a in labels.dims.items() if d != dim}
        p.assign(out, Labels(dims, labels.activation))
    return None
