"""Operators that move elements without changing them: labels move exactly as the elements do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from automl_prune.channels.provenance import FREE, NONE, IntArray, Labels, Provenance
from automl_prune.channels.rules.call import Call, depends_on_input, rule, unknown

aten = torch.ops.aten

_RESHAPES = (aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)


@rule(
    *_RESHAPES, aten.permute, aten.transpose, aten.t, aten.unsqueeze, aten.squeeze, aten.select,
    aten.pixel_shuffle, aten.pixel_unshuffle, aten.channel_shuffle, aten.native_channel_shuffle, aten.unfold,
    aten.movedim, aten.index_select, aten.diagonal, aten.transpose_, aten.squeeze_, aten.unsqueeze_, aten.t_,
)  # fmt: skip
def structural(p: Provenance, call: Call) -> None:
    """Run the operator on the labels themselves."""
    source, out = call.args[0], call.outputs[0]
    labels = p.of(source)
    dims: dict[int, IntArray] = {}
    for dim, array in labels.dims.items():
        if (array < 0).all():
            continue
        moved, varying = _moved(call, source, dim, array)
        grid = moved[tuple(slice(None) if d in varying else 0 for d in range(moved.dim()))].numpy()
        varying, grid = _without_copies(varying, grid)
        if {x for x in np.unique(grid).tolist() if x >= 0} != {x for x in array.tolist() if x >= 0}:
            p.protect(array, f"{call.name} picks some of them by their number")
        target, along = _as_one_dimension(p, varying, grid)
        if target is None or target in dims:
            p.protect(array, f"{call.name} mixes them with other channels or with space")
            continue
        dims[target] = along
        if call.func.overloadpacket in _RESHAPES:
            p.claim(array)
            p.claim(along)
    for dim, array in labels.dims.items():
        if (array == FREE).all():  # whatever a free dimension becomes a part of is free
            for target in _moved(call, source, dim, np.arange(len(array)))[1]:
                dims.setdefault(target, np.full(out.shape[target], FREE, dtype=np.int64))
    if call.func.overloadpacket in _RESHAPES and dims:  # the shape may be held as a whole
        p.claim(*(dims.get(d, np.full(size, NONE, dtype=np.int64)) for d, size in enumerate(out.shape)))
    p.assign(out, Labels(dims, labels.activation, labels.made))


def _moved(call: Call, source: torch.Tensor, dim: int, array: IntArray) -> tuple[torch.Tensor, list[int]]:
    """The labels of one dimension after the operator, and the dimensions they may vary along."""
    shape = [1] * source.dim()
    shape[dim] = -1
    moved = _run_on_labels(call, torch.from_numpy(array).reshape(shape).expand(source.shape))
    return moved, [d for d in range(moved.dim()) if moved.shape[d] > 1 and moved.stride(d) != 0]


def _run_on_labels(call: Call, labels: torch.Tensor) -> torch.Tensor:
    if call.func.overloadpacket in _RESHAPES:
        return labels.reshape(call.out.shape)
    args = [argument.cpu() if isinstance(argument, torch.Tensor) else argument for argument in call.args[1:]]
    moved: torch.Tensor = call.func(labels, *args, **call.kwargs)  # labels live on the CPU
    return moved


def _without_copies(varying: list[int], grid: IntArray) -> tuple[list[int], IntArray]:
    """The dimensions that labels really vary along, and the grid over those: what is constant is a copy."""
    left = list(varying)
    for position in range(len(left) - 1, -1, -1):
        if (grid == grid.take([0], axis=position)).all():
            grid = np.asarray(grid.take(0, axis=position))
            del left[position]
    return left, grid


def _as_one_dimension(p: Provenance, varying: list[int], grid: IntArray) -> tuple[int | None, IntArray]:
    """Which single dimension carries the labels, and one label per position of it.

    ``grid`` holds the labels over the dimensions ``varying`` alone. Where they vary along several (a channel axis
    viewed as heads x width, or shuffled into space), tensors stay rectangular only if whole slices are removed: all
    labels of a slice are tied, along the dimension that leaves the most classes.
    """
    if not varying:
        return None, np.zeros(0, dtype=np.int64)
    if len(varying) == 1:
        return varying[0], grid.astype(np.int64)
    counts = [_slice_classes(grid, position) for position in range(len(varying))]
    best = int(np.argmax(counts))
    slices = np.moveaxis(grid, best, 0).reshape(grid.shape[best], -1)
    along = slices.max(axis=1).astype(np.int64)
    spread = np.broadcast_to(along[:, None], slices.shape)
    real = slices >= 0
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
            if label >= 0:
                parent[root(i)] = root(owner.setdefault(label, i))
    labelled = [i for i, values in enumerate(slices) if (values >= 0).any()]
    return len({root(i) for i in labelled})


@rule(aten.as_strided, aten.as_strided_)
def restride(p: Provenance, call: Call) -> None:
    """Another layout of the same tensor in memory; any other use is beyond following."""
    if call.args[0].shape == call.outputs[0].shape:
        p.assign(call.outputs[0], p.of(call.args[0]))
    else:
        unknown(p, call)


@rule(aten.expand, aten.repeat)
def enlarge(p: Provenance, call: Call) -> None:
    """Dimensions are copied: a single position becomes as many as asked for (free), others repeat."""
    source, out = call.args[0], call.outputs[0]
    labels, first = p.of(source), out.dim() - source.dim()
    dims: dict[int, IntArray] = {}
    for dim, size in enumerate(out.shape):
        if dim < first or (source.shape[dim - first] == 1 and size > 1):
            dims[dim] = np.full(size, FREE, dtype=np.int64)
        elif dim - first in labels.dims:
            array = labels.dims[dim - first]
            dims[dim] = np.tile(array, size // len(array))
            p.claim(dims[dim])
    p.assign(out, Labels(dims, labels.activation, labels.made))


@rule(aten.roll, aten.flip)
def turn(p: Provenance, call: Call) -> None:
    """Positions of some dimensions change places among themselves."""
    labels, out = p.of(call.args[0]), call.outputs[0]
    dims = {}
    for dim, array in labels.dims.items():
        shape = [1] * out.dim()
        shape[dim] = -1
        moved = call.func(torch.from_numpy(array).reshape(shape), *call.args[1:], **call.kwargs)
        dims[dim] = moved.reshape(-1).numpy()
    p.assign(out, Labels(dims, labels.activation, labels.made))


@rule(aten.constant_pad_nd)
def pad(p: Provenance, call: Call) -> None:
    """Added positions are no channels; cut ones must stay, so that the same are cut again."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    dims = {}
    for dim, array in labels.dims.items():
        at = 2 * (source.dim() - 1 - dim)
        before, after = call.args[1][at : at + 2] if at < len(call.args[1]) else (0, 0)
        p.protect(array[: max(0, -before)], f"{call.name} cuts them off")
        p.protect(array[len(array) + min(0, after) :], f"{call.name} cuts them off")
        dims[dim] = torch.constant_pad_nd(torch.from_numpy(array), [before, after], NONE).numpy()
    p.assign(out, Labels(dims, labels.activation))


@rule(aten.im2col)
def im2col(p: Provenance, call: Call) -> None:
    """Every channel becomes kernel-size many rows, next to each other."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    _protect_space(p, call, labels, 2)
    channels = p.on(source, source.dim() - 3)
    p.assign(out, Labels({out.dim() - 2: np.repeat(channels, int(np.prod(call.args[1])))}, labels.activation))


@rule(aten.col2im)
def col2im(p: Provenance, call: Call) -> None:
    """Kernel-size many rows become one channel again: they are tied."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    rows = p.on(source, source.dim() - 2).reshape(-1, int(np.prod(call.args[2])))
    channels = p.tie_all(rows.T, call.name)
    p.assign(out, Labels({out.dim() - 3: channels}, labels.activation))


def _protect_space(p: Provenance, call: Call, labels: Labels, rank: int) -> None:
    first = call.args[0].dim() - rank
    for dim, array in labels.dims.items():
        if dim >= first:
            p.protect(array, f"{call.name} treats them as space")


@rule(aten.cat)
def cat(p: Provenance, call: Call) -> None:
    """Labels follow each other along the joined dimension and are tied along all others."""
    parts = [tensor for tensor in call.args[0] if tensor.numel()]
    out = call.outputs[0]
    joined_dim = int(call.argument(1, "dim", 0)) % out.dim()
    dims: dict[int, IntArray] = {}
    for dim in range(out.dim()):
        arrays = [p.on(part, dim) for part in parts]
        if dim == joined_dim:
            dims[dim] = np.maximum(np.concatenate(arrays), NONE)  # what is free alone is of fixed number here
        elif any((array >= 0).any() for array in arrays):
            dims[dim] = p.tie_all(arrays, call.name)
    made = all(p.of(part).made for part in parts)
    p.assign(out, Labels({} if made else dims, depends_on_input(p, parts), made))


@rule(aten.stack)
def stack(p: Provenance, call: Call) -> None:
    """A new dimension without labels; the others are tied."""
    parts, out = call.args[0], call.outputs[0]
    new_dim = int(call.argument(1, "dim", 0)) % out.dim()
    dims: dict[int, IntArray] = {}
    for dim in range(parts[0].dim()):
        arrays = [p.on(part, dim) for part in parts]
        if any((array >= 0).any() for array in arrays):
            dims[dim + (dim >= new_dim)] = p.tie_all(arrays, call.name)
    p.assign(out, Labels(dims, depends_on_input(p, parts)))


# ------------------------------------------------------------------------------------------------- cutting


@rule(aten.split, aten.split_with_sizes, aten.chunk, aten.tensor_split)
def split(p: Provenance, call: Call) -> None:
    """Parts of a channel axis: see ``_cut``."""
    source, labels = call.args[0], p.of(call.args[0])
    dim = int(call.argument(2, "dim", 0)) % source.dim()
    array = labels.dims.get(dim)
    sizes = [part.shape[dim] for part in call.out]
    if array is not None:
        p.claim(array)
        p.claim(*np.split(array, np.cumsum(sizes)[:-1]))
        _cut(p, array, sizes, derived=call.func.overloadpacket is aten.split_with_sizes)
    ends = np.cumsum(sizes)
    for part, end in zip(call.out, ends, strict=True):
        dims = dict(labels.dims)
        if array is not None:
            dims[dim] = array[end - part.shape[dim] : end]
            p.claim(dims[dim])
        p.assign(part, Labels(dims, labels.activation, labels.made))


def _cut(p: Provenance, array: IntArray, sizes: Sequence[int], *, derived: bool) -> None:
    """Tie what a cut couples.

    Equal parts stay equally wide (``chunk``), unless the sizes may be ``derived`` from tensors and the cuts lie
    where one layer's channels end: what was concatenated is taken apart again, and each part has its own width.
    Uneven parts are taken to have such sizes too. Proof finds where a size was a constant.
    """
    if derived and all(p.ends_axis(array, end) for end in np.cumsum(sizes)[:-1]):
        return
    if len(set(sizes)) == 1:
        p.tie_parts(array, len(sizes), "a split into equal parts")


@rule(aten.slice)
def slice_(p: Provenance, call: Call) -> None:
    """A part of an axis, or every n-th position of it: see ``_cut``."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    dim = int(call.argument(1, "dim", 0)) % source.dim()
    size, part, step = source.shape[dim], out.shape[dim], int(call.argument(4, "step", 1))
    dims, array = dict(labels.dims), labels.dims.get(dim)
    if array is not None and part < size:
        start = int(call.argument(2, "start", 0) or 0)
        start = max(0, start + size) if start < 0 else start
        dims[dim] = array[start::step][:part]
        if step > 1 and size % step:
            p.protect(array, f"{call.name} takes every {step}th of {size}")
        elif step > 1:
            p.tie_all(array.reshape(-1, step).T, call.name)
        elif part and size % part == 0 and start % part == 0:
            _cut(p, array, [part] * (size // part), derived=True)
        for claimed in (dims[dim], array[:start], array):
            p.claim(claimed)
    p.assign(out, Labels(dims, labels.activation, labels.made))


@rule(aten.unbind)
def unbind(p: Provenance, call: Call) -> None:
    """One tensor per position; channels cannot become tensors."""
    source, labels = call.args[0], p.of(call.args[0])
    dim = int(call.argument(1, "dim", 0)) % source.dim()
    if dim in labels.dims:
        p.protect(labels.dims[dim], f"{call.name} makes a tensor of each of them")
    dims = {d - (d > dim): array for d, array in labels.dims.items() if d != dim}
    for part in call.out:
        p.assign(part, Labels(dims, labels.activation))


@rule(aten.index)
def index(p: Provenance, call: Call) -> None:
    """Indexing by tensors: dimensions that are not indexed keep their labels."""
    source, labels, out = call.args[0], p.of(call.args[0]), call.outputs[0]
    given = [tensor is not None for tensor in call.args[1]]
    given += [False] * (source.dim() - len(given))
    indexed = [dim for dim, is_given in enumerate(given) if is_given]
    if any(tensor is not None and tensor.dtype in (torch.bool, torch.uint8) for tensor in call.args[1]):
        return unknown(p, call)
    for dim in indexed:
        if dim in labels.dims:
            p.protect(labels.dims[dim], f"{call.name} picks some of them by their number")
    added = out.dim() - (source.dim() - len(indexed))  # dimensions of the broadcast index
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    at = indexed[0] if together else 0
    rest = [dim for dim in range(source.dim()) if dim not in indexed]
    places = [d if d < at else d + added for d in range(len(rest))]
    dims = {place: labels.dims[dim] for dim, place in zip(rest, places, strict=True) if dim in labels.dims}
    p.assign(out, Labels(dims, depends_on_input(p, call.tensors)))
    return None


@rule(aten.embedding)
def embedding(p: Provenance, call: Call) -> None:
    """Rows of a table: the last dimension is the table's second axis, which produces the channels."""
    table, out = call.args[0], call.outputs[0]
    columns = p.on(table, 1)
    p.protect(p.on(table, 0), f"{call.name} looks them up by their number")
    p.produce(columns)
    p.assign(out, Labels({out.dim() - 1: columns}, activation=True))
