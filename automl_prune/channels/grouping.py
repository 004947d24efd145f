"""From labels to groups: classes of tied labels are channels, channels on the same axes are one group."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from torch import nn

from automl_prune.channels.group import ChannelGroup, Member, Role, Skipped
from automl_prune.channels.provenance import HeldTensor, IntArray, Provenance
from automl_prune.channels.surgery import FOLLOWING, is_sizes
from automl_prune.costs.memory import LiveTensor
from automl_prune.costs.polynomial import AxisLength, Term


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number, or a list of them, held by a module and following the widths, such as the sizes of a split.

    Attributes:
        module: Qualified name.
        name: Of the attribute.
        sizes: Its numbers as functions of the group widths.
        single: Whether it is one number, not a list of one.
    """

    module: str
    name: str
    sizes: tuple[AxisLength, ...]
    single: bool

    def at(self, widths: Mapping[str, int]) -> int | list[int]:
        """The attribute's value for given group widths."""
        values = [size.at(widths) for size in self.sizes]
        return values[0] if self.single else values

    def follows(self, group: str) -> bool:
        """Whether the value depends on a group's width."""
        return any(group in size.positions for size in self.sizes)


@dataclass(frozen=True, slots=True)
class _Alike:
    """Channels on the same axes.

    Attributes:
        numbers: Their classes, shape (channels,).
        axes: The axis of each position a channel takes, shape (positions per channel,), ascending.
        positions: Where on those axes, shape (channels, positions per channel).
        layer: The layer that produces them first.
    """

    numbers: IntArray
    axes: IntArray
    positions: IntArray
    layer: str = ""

    def sorted_by(self, axis: int, layer: str) -> _Alike:
        """The channels in the order of one axis, produced by ``layer``."""
        order = np.argsort(self.positions[:, np.flatnonzero(self.axes == axis)[0]])
        return _Alike(self.numbers[order], self.axes, self.positions[order], layer)


class Grouping:
    """What a trace says about a model: groups, protected channels, costs, sizes.

    Args:
        model: The model that was traced.
        provenance: The trace.
    """

    def __init__(self, model: nn.Module, provenance: Provenance) -> None:
        self._model = model
        self._provenance = provenance
        self._classes = provenance.classes()
        self._count = int(self._classes.max(initial=-1)) + 1
        axes = provenance.axes
        self._starts = np.array([axis.start for axis in axes], dtype=np.int64)
        self._axis_of = np.repeat(np.arange(len(axes)), [axis.length for axis in axes])
        produced, consumed = provenance.produced_mask(), provenance.consumed_mask()
        self._spanned = self._has(provenance.spanned_mask())
        self._roles: list[Role] = [
            "consumer" if consumed[a.start] else "producer" if produced[a.start] else "channelwise" for a in axes
        ]
        self._order = {term.layer: i for i, term in reversed(list(enumerate(provenance.contractions)))}
        self._prunable: list[_Alike] = []
        self._skipped: dict[tuple[str, str], int] = defaultdict(int)
        for alike in self._alike():
            self._sort_out(alike)
        self._named = self._name_groups()
        self._group_of = np.full(self._count, -1)
        for number, alike in enumerate(self._named.values()):
            self._group_of[alike.numbers] = number

    def groups(self) -> tuple[ChannelGroup, ...]:
        """What can be pruned, in the order the network runs."""
        return tuple(self._group(name, alike) for name, alike in self._named.items())

    def skipped(self) -> tuple[Skipped, ...]:
        """What cannot, and why."""
        return tuple(Skipped(name, width, reason) for (name, reason), width in self._skipped.items())

    def terms(self) -> tuple[Term, ...]:
        """Multiply-accumulates per sample, a term per convolution and matrix product."""
        return tuple(
            Term(term.layer, term.coefficient, tuple(self._length(axis) for axis in term.axes))
            for term in self._provenance.contractions
        )

    def parameter_terms(self) -> tuple[Term, ...]:
        """Number of parameters, a term per parameter."""
        return tuple(self._parameter_terms())

    def tensors(self) -> tuple[LiveTensor, ...]:
        """What takes memory while one sample runs, parameters and buffers too, in bytes, and when.

        A tensor made from a size alone (``zeros``) counts as in the dense model: its labels come later, if ever.
        """
        return tuple(LiveTensor(self._bytes(span.what), span.first, span.last) for span in self._provenance.memory)

    def attributes(self) -> tuple[Attribute, ...]:
        """Numbers held by modules that equal a size which follows some channels.

        A module's whole number, or list of them, counts when it equals sizes that the module's own forward called an
        operator with, and all its sizes of that value agree; whether the guess is right is for proof to say.
        """
        claimed: dict[tuple[str, tuple[int, ...]], list[tuple[AxisLength, ...]]] = defaultdict(list)
        for claim in self._provenance.claims:
            claimed[claim.layer, claim.sizes].append(tuple(self._length(labels) for labels in claim.labels))
        modules = dict(self._model.named_modules())
        found = []
        for (layer, sizes), lengths in claimed.items():
            agreed = lengths[0] if all(other == lengths[0] for other in lengths) else ()
            if isinstance(modules[layer], FOLLOWING) or not any(length.positions for length in agreed):
                continue
            for name, value in vars(modules[layer]).items():
                single = type(value) is int
                if (single and (value,) == sizes) or (is_sizes(value) and tuple(value) == sizes):
                    found.append(Attribute(layer, name, agreed, single))
        return tuple(found)

    # ---- channels

    def _has(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each class has a label of the mask; shape (classes,)."""
        found = np.zeros(self._count, dtype=bool)
        found[self._classes[mask]] = True
        return found

    def _alike(self) -> Iterator[_Alike]:
        """Classes that some layer produces, those on the same axes with as many positions each together."""
        producing = np.array([role == "producer" for role in self._roles], dtype=bool)[self._axis_of]
        wanted = self._has(producing)
        labels = np.argsort(self._classes, kind="stable")
        labels = labels[wanted[self._classes[labels]]]
        numbers, first = np.unique(self._classes[labels], return_index=True)
        contractions = self._contractions()
        found: dict[tuple[bytes, bytes], list[tuple[int, IntArray]]] = defaultdict(list)
        for number, own in zip(numbers.tolist(), np.split(labels, first[1:]), strict=True):
            row = slice(*contractions.indptr[number : number + 2])
            counted = contractions.indices[row].tobytes() + contractions.data[row].tobytes()
            found[self._axis_of[own].tobytes(), counted].append((number, own))
        for rows in found.values():
            own = np.stack([labels for _, labels in rows])
            axes = self._axis_of[own[0]]
            yield _Alike(np.array([number for number, _ in rows]), axes, own - self._starts[axes])

    def _contractions(self) -> csr_array:
        """How often each class occurs on each axis of each contraction, shape (classes, axes of all contractions)."""
        axes = [axis[axis >= 0] for term in self._provenance.contractions for axis in term.axes]
        rows = self._classes[np.concatenate([*axes, np.zeros(0, dtype=np.int64)])]
        columns = np.repeat(np.arange(len(axes)), [len(axis) for axis in axes])
        counts = coo_array((np.ones(len(rows), dtype=np.int64), (rows, columns)), shape=(self._count, len(axes) + 1))
        return counts.tocsr()

    def _sort_out(self, alike: _Alike) -> None:
        """Channels that may be pruned are kept, the others counted by layer and reason."""
        producers = [axis for axis in dict.fromkeys(alike.axes.tolist()) if self._roles[axis] == "producer"]
        layer = self._first_layer(producers)
        first = next(axis for axis in producers if self._owner(axis) == layer)
        alike = alike.sorted_by(first, layer)
        reasons = [self._reason(number, alike.axes) for number in alike.numbers.tolist()]
        for reason in filter(None, reasons):
            self._skipped[layer, reason] += 1
        free = np.array([reason is None for reason in reasons])
        if free.any():
            self._prunable.append(replace(alike, numbers=alike.numbers[free], positions=alike.positions[free]))

    def _reason(self, number: int, axes: IntArray) -> str | None:
        """Why channels must stay, if they must."""
        if number in self._reasons:
            return self._reasons[number]
        read = self._spanned[number] or any(self._roles[axis] == "consumer" for axis in axes.tolist())
        return None if read else "no layer reads them in the forward pass"

    @cached_property
    def _reasons(self) -> dict[int, str]:
        labelled = self._provenance.reasons().items()
        return {int(self._classes[label]): reason for label, reason in reversed(labelled)}

    def _first_layer(self, producers: Iterable[int]) -> str:
        """The producing layer that runs first; its name is the group's."""
        layers = [self._owner(axis) for axis in producers]
        return min(layers, key=lambda layer: self._order.get(layer, len(self._order)))

    def _owner(self, axis: int) -> str:
        """The module that holds the axis's parameter; for a parametrized one, the module that uses it."""
        module = self._provenance.axes[axis].parameter.rpartition(".")[0]
        return module.partition(".parametrizations.")[0].removesuffix(".parametrizations")

    # ---- groups

    def _name_groups(self) -> dict[str, _Alike]:
        """Groups by name, in network order."""
        named: dict[str, _Alike] = {}
        for alike in sorted(self._prunable, key=lambda row: self._order.get(row.layer, len(self._order))):
            count = sum(name.partition("#")[0] == alike.layer for name in named)
            named[f"{alike.layer}#{count + 1}" if count else alike.layer] = alike
        return named

    def _group(self, name: str, alike: _Alike) -> ChannelGroup:
        members = []
        for axis in np.unique(alike.axes).tolist():
            where = self._provenance.axes[axis]
            index = alike.positions[:, alike.axes == axis]
            members.append(Member(where.parameter, where.axis, index, self._roles[axis]))
        numbers = alike.numbers.tolist()
        mixes = {mixer for number in numbers for mixer in self._mixers.get(number, ())}
        spanned = bool(self._spanned[alike.numbers].any())
        return ChannelGroup(name, len(numbers), tuple(members), tuple(sorted(mixes)), spanned)

    @cached_property
    def _mixers(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for label, names in self._provenance.mixers().items():
            found[int(self._classes[label])] |= names
        return found

    # ---- sizes

    def _length(self, labels: IntArray) -> AxisLength:
        """The length of an axis as a function of group widths; a part of a group counts as in the dense model."""
        owners = self._group_of[self._classes[labels[labels >= 0]]]
        counts = np.bincount(owners[owners >= 0], minlength=len(self._named))
        constant, positions = len(labels), {}
        for (name, alike), count in zip(self._named.items(), counts.tolist(), strict=True):
            if count and count % len(alike.numbers) == 0:
                positions[name] = count // len(alike.numbers)
                constant -= count
        return AxisLength(constant, positions)

    def _bytes(self, tensor: HeldTensor) -> Term:
        if tensor.nbytes != tensor.itemsize * math.prod(tensor.shape):  # padded, or part of something larger
            return Term("", tensor.nbytes, ())
        dims = tensor.labels.dims
        rest = math.prod(size for dim, size in enumerate(tensor.shape) if dim not in dims)
        return Term("", tensor.itemsize * rest, tuple(self._length(labels) for labels in dims.values()))

    def _parameter_terms(self) -> Iterator[Term]:
        labelled = {(axis.parameter, axis.axis): axis for axis in self._provenance.axes}
        for name, parameter in self._model.named_parameters():
            axes = []
            for dim, size in enumerate(parameter.shape):
                found = labelled.get((name, dim))
                length = self._length(np.arange(found.start, found.start + size)) if found else AxisLength(size, {})
                axes.append(length)
            constant = [axis.constant for axis in axes if not axis.positions]
            yield Term(name, int(np.prod(constant, dtype=np.int64)), tuple(a for a in axes if a.positions))
