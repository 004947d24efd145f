"""How each ATen operator moves labels. An operator without a rule protects what it touches, and is named.

A rule is one function ``(provenance, call) -> None`` registered for its operators with ``@rule(...)``; users add
rules for custom operators in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch._ops import OpOverload, OpOverloadPacket

from automl_prune.channels.provenance import NONE, IntArray, Labels, Provenance

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call as the dispatcher saw it: the operator, its arguments, and what it returned."""

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    @property
    def name(self) -> str:
        """The operator's name for messages, e.g. ``cat``."""
        return str(self.func.overloadpacket.__name__)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument whichever way it was passed."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensor arguments, those in lists included."""
        return _tensors([*self.args, *self.kwargs.values()])

    @property
    def outputs(self) -> list[torch.Tensor]:
        """All tensors returned."""
        return _tensors(self.out if isinstance(self.out, (tuple, list)) else [self.out])


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(item for item in value if isinstance(item, torch.Tensor))
    return found


Rule = Callable[[Provenance, Call], None]
_rules: dict[OpOverloadPacket, Rule] = {}


def rule(*operators: OpOverloadPacket) -> Callable[[Rule], Rule]:
    """Register the decorated rule for some operators, e.g. ``@rule(torch.ops.mylib.fused_block)``.

    Raises:
        ValueError: An operator has a rule already.
    """

    def add(function: Rule) -> Rule:
        for operator in operators:
            if operator in _rules:
                raise ValueError(f"{operator} has a rule already")
            _rules[operator] = function
        return function

    return add


def apply_rule(provenance: Provenance, call: Call) -> None:
    """Label what an operator returned, tying and protecting on the way."""
    function = _rules.get(call.func.overloadpacket)
    if function is None:
        function = pointwise if torch.Tag.pointwise in call.func.tags else unknown
    function(provenance, call)


def unknown(p: Provenance, call: Call) -> None:
    """No rule: protect everything the operator reads, and everything it writes to."""
    labels = [p.of(tensor) for tensor in call.tensors]
    p.protect_all(labels, f"{_at(p)}no rule is known for the operator {call.name}; add one with channels.rule")
    for tensor in call.outputs:
        p.assign(tensor, Labels({}, any(item.activation for item in labels)))


def _at(p: Provenance) -> str:
    return f"in {p.layer}: " if p.layer else ""


def _activation(p: Provenance, tensors: Sequence[torch.Tensor]) -> bool:
    return any(p.of(tensor).activation for tensor in tensors)


def _array(labels: Labels, dim: int, size: int) -> IntArray:
    found = labels.dims.get(dim)
    return np.full(size, NONE, dtype=np.int64) if found is None else found


# ---------------------------------------------------------------------------------------------- pointwise


@rule(
    aten.copy_, aten.hardswish, aten.hardswish_, aten.relu6, aten.dropout_, aten.rrelu_with_noise, aten.prelu,
    aten._prelu_kernel, aten.masked_fill, aten.masked_fill_,
)  # fmt: skip  # pointwise, but not tagged so by torch
def pointwise(p: Provenance, call: Call) -> None:
    """Tie the labels that meet, under broadcasting; a dimension that is broadcast brings no labels."""
    for out in call.outputs:
        dims: dict[int, IntArray] = {}
        for dim in range(out.dim()):
            meeting = [
                _array(p.of(tensor), dim - out.dim() + tensor.dim(), out.shape[dim])
                for tensor in call.tensors
                if dim - out.dim() + tensor.dim() >= 0 and tensor.shape[dim - out.dim()] == out.shape[dim]
            ]
            if any((array != NONE).any() for array in meeting):
                joined = meeting[0]
                for array in meeting[1:]:
                    joined = p.tie(joined, array, f"{_at(p)}{call.name}")
                dims[dim] = joined
        _guard_written_view(p, call, dims)
        p.assign(out, Labels(dims, _activation(p, call.tensors)))


def _guard_written_view(p: Provenance, call: Call, dims: dict[int, IntArray]) -> None:
    """Writing channels into part of an unlabelled tensor: the whole tensor does not learn of them, so protect."""
    first = call.args[0] if call.args else None
    writes = isinstance(first, torch.Tensor) and call.name.endswith("_")
    if writes and isinstance(first, torch.Tensor) and first._is_view() and not p.of(first).dims:
        for array in dims.values():
            p.protect(array, f"{_at(p)}{call.name} writes them into a part of another tensor")


@rule(
    aten.clone, aten.contiguous, aten.detach, aten.alias, aten._to_copy, aten.lift_fresh, aten.native_dropout,
    aten.zeros_like, aten.ones_like, aten.empty_like, aten.rand_like, aten.randn_like, aten.full_like,
    aten.bernoulli, aten.bernoulli_, aten.uniform_, aten.normal_, aten.zero_,
)  # fmt: skip
def same_labels(p: Provenance, call: Call) -> None:
    """The result has the first argument's shape and labels."""
    source = p.of(call.args[0])
    for out in call.outputs:
        p.assign(out, source)


@rule(aten.new_empty, aten.new_zeros, aten.new_ones, aten.new_full)
def new_like(p: Provenance, call: Call) -> None:
    """A new tensor: dimensions as long as the source's are taken to follow it (proof finds where they do not)."""
    source, labels = call.args[0], p.of(call.args[0])
    for out in call.outputs:
        same = out.dim() == source.dim()
        dims = {d: a for d, a in labels.dims.items() if same and out.shape[d] == source.shape[d]}
        p.assign(out, Labels(dims, labels.activation))


# --------------------------------------------------------------------------------------------- structural


@rule(
    aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias, aten.permute, aten.transpose, aten.t,
    aten.unsqueeze, aten.squeeze, aten.expand, aten.slice, aten.select, aten.flip, aten.roll, aten.repeat,
    aten.constant_pad_nd, aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle,
    aten.native_channel_shuffle, aten.unfold, aten.movedim, aten.index_select, aten.narrow,
)  # fmt: skip
def structural(p: Provenance, call: Call) -> None:
    """Run the operator on the labels themselves: they move exactly as the elements do."""
    source, out = call.args[0], call.outputs[0]
    labels = p.of(source)
    dims: dict[int, IntArray] = {}
    for dim, array in labels.dims.items():
        shape = [1] * source.dim()
        shape[dim] = -1
        spread = torch.from_numpy(array).reshape(shape).expand(source.shape)
        moved = _run_on_labels(call, spread)
        varying = [d for d in range(moved.dim()) if moved.shape[d] > 1 and moved.stride(d) != 0]
        grid = moved[tuple(slice(None) if d in varying else 0 for d in range(moved.dim()))].numpy()
        if set(np.unique(grid).tolist()) - {NONE} != set(array.tolist()) - {NONE}:
            p.protect(array, f"{_at(p)}{call.name} cuts them at a fixed position")
        target, along = _as_one_dimension(p, varying, grid)
        if target is None or target in dims:
            p.protect(array, f"{_at(p)}{call.name} mixes them with other channels or with space")
            continue
        dims[target] = along
    p.assign(out, Labels(dims, labels.activation))


def _run_on_labels(call: Call, labels: torch.Tensor) -> torch.Tensor:
    packet = call.func.overloadpacket
    if packet in (aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias):
        return labels.reshape(call.out.shape)
    if packet is aten.constant_pad_nd:
        return torch.constant_pad_nd(labels, call.args[1], NONE)
    moved: torch.Tensor = call.func(labels, *call.args[1:], **call.kwargs)
    return moved


def _as_one_dimension(p: Provenance, varying: list[int], grid: IntArray) -> tuple[int | None, IntArray]:
    """Which single dimension the labels vary along, and one label per position of it.

    ``grid`` holds the labels over the dimensions ``varying`` alone. Where they vary along several (a channel axis
    viewed as heads x width, or shuffled into space), tensors stay rectangular only if whole slices are removed: all
    labels of a slice are tied, along the dimension that leaves the most classes.
    """
    varying = list(varying)
    for position in range(len(varying) - 1, -1, -1):  # drop what is constant after a copy
        first = grid.take([0], axis=position)
        if (grid == first).all():
            grid = np.asarray(grid.take(0, axis=position))
            del varying[position]
    if not varying:
        return None, np.zeros(0, dtype=np.int64)
    if len(varying) == 1:
        return varying[0], grid.astype(np.int64)
    counts = [_slice_classes(grid, position) for position in range(len(varying))]
    best = int(np.argmax(counts))
    slices = np.moveaxis(grid, best, 0).reshape(grid.shape[best], -1)
    along = slices.max(axis=1).astype(np.int64)
    spread = np.broadcast_to(along[:, None], slices.shape)
    real = slices != NONE
    p.tie(slices[real].astype(np.int64), spread[real].copy(), "a view")
    return varying[best], along


def _slice_classes(grid: IntArray, position: int) -> int:
    """How many classes remain when all labels of each slice at ``position`` are tied."""
    slices = np.moveaxis(grid, position, 0).reshape(grid.shape[position], -1)
    owner: dict[int, int] = {}
    parent = list(range(len(slices)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, values in enumerate(slices):
        for label in np.unique(values).tolist():
            if label != NONE:
                parent[root(i)] = root(owner.setdefault(label, i))
    labelled = [i for i, values in enumerate(slices) if (values != NONE).any()]
    return len({root(i) for i in labelled})


@rule(aten.cat)
def cat(p: Provenance, call: Call) -> None:
    """Labels follow each other along the joined dimension and are tied along all others."""
    parts = [tensor for tensor in call.args[0] if tensor.numel()]
    out = call.outputs[0]
    joined_dim = int(call.argument(1, "dim", 0)) % out.dim()
    dims: dict[int, IntArray] = {}
    for dim in range(out.dim()):
        arrays = [_array(p.of(part), dim, part.shape[dim]) for part in parts]
        if dim == joined_dim:
            dims[dim] = np.concatenate(arrays)
        elif any((array != NONE).any() for array in arrays):
            dims[dim] = _tie_all(p, arrays, f"{_at(p)}cat")
    p.assign(out, Labels(dims, _activation(p, parts)))


@rule(aten.stack)
def stack(p: Provenance, call: Call) -> None:
    """A new dimension without labels; the others are tied."""
    parts, out = call.args[0], call.outputs[0]
    new_dim = int(call.argument(1, "dim", 0)) % out.dim()
    dims: dict[int, IntArray] = {}
    for dim in range(parts[0].dim()):
        arrays = [_array(p.of(part), dim, part.shape[dim]) for part in parts]
        if any((array != NONE).any() for array in arrays):
            dims[dim + (dim >= new_dim)] = _tie_all(p, arrays, f"{_at(p)}stack")
    p.assign(out, Labels(dims, _activation(p, parts)))


def _tie_all(p: Provenance, arrays: Sequence[IntArray], where: str) -> IntArray:
    joined = arrays[0]
    for array in arrays[1:]:
        joined = p.tie(joined, array, where)
    return joined


@rule(aten.split, aten.split_with_sizes, aten.unbind, aten.chunk)
def split(p: Provenance, call: Call) -> None:
    """Equal parts of a channel axis stay equally wide (their positions are tied); unequal parts are protected."""
    source, labels = call.args[0], p.of(call.args[0])
    unbinds = call.func.overloadpacket is aten.unbind
    cut = int(call.argument(1, "dim", 0) if unbinds else call.argument(2, "dim", 0)) % source.dim()
    array = labels.dims.get(cut)
    sizes = [1 if unbinds else part.shape[cut] for part in call.out]
    if array is not None and len(sizes) > 1:
        if unbinds or len(set(sizes)) > 1:
            p.protect(array, f"{_at(p)}{call.name} cuts them into parts of fixed, different size")
        else:
            _tie_all(p, list(array.reshape(len(sizes), -1)), f"{_at(p)}{call.name}")
    start = 0
    for part, size in zip(call.out, sizes, strict=True):
        dims = {d - (unbinds and d > cut): a for d, a in labels.dims.items() if d != cut}
        if array is not None and not unbinds:
            dims[cut] = array[start : start + size]
        p.assign(part, Labels(dims, labels.activation))
        start += size


# ------------------------------------------------------------------------------------ space and reductions


def _spatial(rank: int) -> Rule:
    def keep_leading(p: Provenance, call: Call) -> None:
        source, labels = call.args[0], p.of(call.args[0])
        first = source.dim() - rank
        for dim, array in labels.dims.items():
            if dim >= first:
                p.protect(array, f"{_at(p)}{call.name} treats them as space")
        for out in call.outputs:
            p.assign(out, Labels({d: a for d, a in labels.dims.items() if d < first}, labels.activation))

    return keep_leading


rule(
    aten.max_pool2d_with_indices, aten.max_pool2d, aten.avg_pool2d, aten.adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d, aten.adaptive_max_pool2d, aten.reflection_pad2d, aten.replication_pad2d,
    aten.upsample_nearest2d, aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten._upsample_nearest_exact2d,
    aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa,
)(_spatial(2))  # fmt: skip
rule(
    aten.max_pool1d_with_indices, aten.adaptive_avg_pool1d, aten.avg_pool1d, aten.adaptive_max_pool1d,
    aten.upsample_nearest1d, aten.upsample_linear1d, aten.reflection_pad1d, aten.replication_pad1d,
)(_spatial(1))  # fmt: skip
rule(
    aten.max_pool3d_with_indices, aten.avg_pool3d, aten._adaptive_avg_pool3d, aten.adaptive_max_pool3d,
    aten.upsample_nearest3d, aten.upsample_trilinear3d,
)(_spatial(3))  # fmt: skip


@rule(
    aten.mean, aten.sum, aten.amax, aten.amin, aten.var, aten.std, aten.var_mean, aten.std_mean, aten.prod,
    aten.linalg_vector_norm, aten.norm, aten.logsumexp, aten.max, aten.min, aten.argmax, aten.argmin,
)  # fmt: skip
def reduction(p: Provenance, call: Call) -> None:
    """Reduced dimensions lose their labels; channels that are reduced over are protected."""
    source, labels = call.args[0], p.of(call.args[0])
    position = 2 if call.func.overloadpacket in (aten.linalg_vector_norm, aten.norm) else 1
    given = call.argument(position, "dim")
    if isinstance(given, torch.Tensor):
        return unknown(p, call)
    reduced = _dims(given, source.dim())
    for dim in reduced & set(labels.dims):
        p.protect(labels.dims[dim], f"{_at(p)}{call.name} reduces over them")
    for out in call.outputs:
        keeps = out.dim() == source.dim()
        dims = {
            d if keeps else d - sum(r < d for r in reduced): array
            for d, array in labels.dims.items()
            if d not in reduced
        }
        p.assign(out, Labels(dims, labels.activation))
    return None


def _dims(given: Any, rank: int) -> set[int]:
    if given is None or given == []:
        return set(range(rank))
    return {int(d) % rank for d in ([given] if isinstance(given, int) else given)}


@rule(aten._softmax, aten._log_softmax, aten.softmax, aten.log_softmax, aten.cumsum, aten.glu)
def along_dimension(p: Provenance, call: Call) -> None:
    """Positions along one dimension influence each other: channels on it are protected."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    position = int(call.argument(1, "dim", -1)) % source.dim()
    if position in labels.dims:
        p.protect(labels.dims[position], f"{_at(p)}{call.name} runs over them")
    p.assign(out, Labels({d: a for d, a in labels.dims.items() if d != position}, labels.activation))


# --------------------------------------------------------------------------------------------------- norms


@rule(
    aten.native_batch_norm, aten._native_batch_norm_legit, aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update, aten._batch_norm_no_update, aten.cudnn_batch_norm, aten.miopen_batch_norm,
)  # fmt: skip
def batch_norm(p: Provenance, call: Call) -> None:
    """Scale, shift and running statistics follow the channels of dimension 1."""
    source, labels = call.args[0], p.of(call.args[0])
    array = _array(labels, 1, source.shape[1])
    for tensor in call.args[1:5]:
        if isinstance(tensor, torch.Tensor):
            array = p.tie(array, _array(p.of(tensor), 0, source.shape[1]), f"{_at(p)}batch norm")
    p.assign(call.outputs[0], Labels({**labels.dims, 1: array}, labels.activation))


# -------------------------------------------------------------------------------------------- contractions


@rule(aten.convolution, aten._convolution, aten.cudnn_convolution, aten.mkldnn_convolution)
def convolution(p: Provenance, call: Call) -> None:
    """The input's channels are the weight's input axis; the result's are the weight's output axis.

    In a grouped convolution every convolution group keeps as many channels as the others: equal positions are
    tied. In a depthwise one each filter belongs to its channel.
    """
    x, weight, out = call.args[0], call.args[1], call.outputs[0]
    bias, transposed = call.argument(2, "bias"), bool(call.argument(6, "transposed", False))
    groups = int(call.argument(8, "groups", 1))
    labels, weights = p.of(x), p.of(weight)
    for dim in set(labels.dims) - {1}:
        p.protect(labels.dims[dim], f"{_at(p)}convolution treats them as batch or space")
    read_axis, made_axis = (0, 1) if transposed else (1, 0)
    read = _array(weights, read_axis, weight.shape[read_axis])
    made = _array(weights, made_axis, weight.shape[made_axis])
    incoming = _array(labels, 1, x.shape[1])
    positions = int(np.prod((x if transposed else out).shape[2:]))
    kernel = int(np.prod(weight.shape[2:]))
    _contract(p, positions * kernel * x.shape[0], [read, made])

    if groups > 1 and groups == x.shape[1]:
        produced = _depthwise(p, incoming, weight, read, made, transposed=transposed)
    elif transposed:
        _tie_parts(p, read, groups, "convolution")
        _read_channels(p, incoming, read)
        produced = np.tile(made, groups)
    else:
        _tie_parts(p, made, groups, "convolution")
        for part in incoming.reshape(groups, -1):
            _read_channels(p, part, read)
        _tie_parts(p, incoming, groups, "convolution")
        produced = made
    if not (groups > 1 and groups == x.shape[1]):
        p.produce(made)
    if isinstance(bias, torch.Tensor):
        p.tie(produced, _array(p.of(bias), 0, out.shape[1]), f"{_at(p)}convolution bias")
    p.assign(out, Labels({1: produced}, True))


def _contract(p: Provenance, unlabelled: int, axes: Sequence[IntArray]) -> None:
    """Record a cost; axes without labels go into the coefficient."""
    labelled = [axis for axis in axes if (axis != NONE).any()]
    for axis in axes:
        if not (axis != NONE).any():
            unlabelled *= len(axis)
    p.contract(unlabelled, labelled)


def _depthwise(
    p: Provenance,
    incoming: IntArray,
    weight: torch.Tensor,
    read: IntArray,
    made: IntArray,
    *,
    transposed: bool,
) -> IntArray:
    where = f"{_at(p)}depthwise convolution"
    if transposed:  # weight (channels, multiplier, ...): axis 0 is the channel, axis 1 must stay
        p.protect(made, f"{where} has several fixed outputs per channel")
        return np.repeat(p.tie(incoming, read, where), weight.shape[1])
    multiplier = weight.shape[0] // len(incoming)
    return p.tie(np.repeat(incoming, multiplier), made, where)


def _tie_parts(p: Provenance, array: IntArray, parts: int, where: str) -> None:
    if parts > 1 and (array != NONE).any():
        _tie_all(p, list(array.reshape(parts, -1)), f"{_at(p)}{where}")


def _read_channels(p: Provenance, incoming: IntArray, read: IntArray) -> None:
    """Tie incoming channels to the weight axis that reads them; an axis that reads something else must stay."""
    p.consume(read)
    fixed = (incoming == NONE) & (read != NONE)
    if fixed.any():
        p.protect(read[fixed], f"{_at(p)}the layer reads the model's input or values that are no channels")
    real = incoming != NONE
    p.tie(incoming[real], read[real], f"{_at(p)}the layer")


@rule(aten.mm, aten.bmm, aten.addmm, aten.baddbmm, aten.dot, aten.mv)
def matmul(p: Provenance, call: Call) -> None:
    """The contracted dimensions are tied; the result keeps the others."""
    packet = call.func.overloadpacket
    has_bias = packet in (aten.addmm, aten.baddbmm)
    a, b = (call.args[1], call.args[2]) if has_bias else (call.args[0], call.args[1])
    if packet in (aten.dot, aten.mv):
        return unknown(p, call)
    la, lb, out = p.of(a), p.of(b), call.outputs[0]
    inner_a, inner_b = a.dim() - 1, b.dim() - 2
    rows, columns = a.dim() - 2, b.dim() - 1
    left, right = _array(la, inner_a, a.shape[-1]), _array(lb, inner_b, b.shape[-2])
    batch = a.shape[0] if a.dim() == 3 else 1
    outer_rows, outer_columns = _array(la, rows, a.shape[rows]), _array(lb, columns, b.shape[columns])
    _contract(p, batch, [outer_rows, left if (left != NONE).any() else right, outer_columns])
    for labels, other, (mine, theirs) in ((lb, la, (right, left)), (la, lb, (left, right))):
        if not labels.activation and other.activation:
            _read_channels(p, theirs, mine)
            p.produce(outer_columns if labels is lb else outer_rows)
            break
    else:
        p.tie(left, right, f"{_at(p)}{call.name}")
    dims = {out.dim() - 2: outer_rows, out.dim() - 1: outer_columns}
    if a.dim() == 3 and (0 in la.dims or 0 in lb.dims):
        dims[0] = p.tie(_array(la, 0, batch), _array(lb, 0, batch), f"{_at(p)}{call.name}")
    if has_bias:
        bias = call.args[0]
        for dim in range(bias.dim()):
            at = dim + out.dim() - bias.dim()
            if bias.shape[dim] == out.shape[at] and out.shape[at] > 1:
                dims[at] = p.tie(dims[at], _array(p.of(bias), dim, out.shape[at]), f"{_at(p)}bias")
    p.assign(out, Labels(dims, la.activation or lb.activation))
    return None
