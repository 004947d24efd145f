"""From labels to groups: classes of tied labels are channels, channels on the same axes are one group."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import nn

from automl_prune.channels.group import ChannelGroup, Member, Role, Skipped
from automl_prune.channels.provenance import IntArray, Provenance, SizeClaim
from automl_prune.channels.surgery import FOLLOWING
from automl_prune.costs.polynomial import AxisLength, Term


@dataclass(frozen=True, slots=True)
class Attribute:
    """A number held by a module that follows the widths, such as the number of channels a view is written with.

    Attributes:
        module: Qualified name.
        name: Of the attribute.
        size: Its value as a function of the group widths.
    """

    module: str
    name: str
    size: AxisLength


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
        axes = provenance.axes
        self._starts = np.array([axis.start for axis in axes], dtype=np.int64)
        self._axis_of = np.repeat(np.arange(len(axes)), [axis.length for axis in axes])
        produced, consumed = provenance.produced_mask(), provenance.consumed_mask()
        self._spanned = set(self._classes[provenance.spanned_mask()].tolist())
        self._roles: list[Role] = [
            "consumer" if consumed[a.start] else "producer" if produced[a.start] else "channelwise" for a in axes
        ]
        self._order = {term.layer: i for i, term in reversed(list(enumerate(provenance.contractions)))}
        self._channels = self._find_channels()
        self._prunable, self._skipped = self._sort_out()
        self._named = self._name_groups()

    def groups(self) -> tuple[ChannelGroup, ...]:
        """What can be pruned, in the order the network runs."""
        return tuple(self._group(name, numbers) for name, numbers in self._named.items())

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

    def attributes(self) -> tuple[Attribute, ...]:
        """Numbers held by modules that equal a size which follows some channels.

        A module's integer attribute counts when its value is that of a size the module's own forward called an
        operator with, and all its sizes of that value agree; whether the guess is right is for proof to say.
        """
        claims: dict[tuple[str, int], list[SizeClaim]] = defaultdict(list)
        for claim in self._provenance.claims:
            claims[claim.layer, claim.size].append(claim)
        modules = dict(self._model.named_modules())
        found = []
        for (layer, size), made in claims.items():
            lengths = [self._length(claim.labels) for claim in made]
            follows = lengths[0].positions and all(length == lengths[0] for length in lengths)
            if not follows or isinstance(modules[layer], FOLLOWING):
                continue
            names = [name for name, value in vars(modules[layer]).items() if type(value) is int and value == size]
            found += [Attribute(layer, name, lengths[0]) for name in names]
        return tuple(found)

    # ---- channels

    def _find_channels(self) -> dict[int, dict[int, list[int]]]:
        """Class of labels -> parameter axis -> the class's positions there; classes that are never removed too."""
        found: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        positions = np.arange(len(self._classes)) - self._starts[self._axis_of] if len(self._classes) else self._classes
        rows = zip(self._classes.tolist(), self._axis_of.tolist(), positions.tolist(), strict=True)
        for number, axis, position in rows:
            found[number][axis].append(position)
        return found

    def _sort_out(self) -> tuple[dict[tuple[object, ...], list[int]], dict[tuple[str, str], int]]:
        """Prunable channels by signature; how many are protected, by layer and reason."""
        prunable: dict[tuple[object, ...], list[int]] = defaultdict(list)
        skipped: dict[tuple[str, str], int] = defaultdict(int)
        labelled = self._provenance.reasons().items()
        reasons = {int(self._classes[label]): reason for label, reason in reversed(labelled)}
        for number, axes in self._channels.items():
            producers = self._producers(axes)
            if not producers:
                continue  # an axis that reads the input, or a parameter no layer produces channels for
            reason = reasons.get(number) or self._unread(number, axes)
            if reason:
                skipped[self._layer(producers), reason] += 1
            else:
                prunable[self._signature(number, axes)].append(number)
        return prunable, skipped

    def _producers(self, axes: Iterable[int]) -> list[int]:
        return [axis for axis in axes if self._roles[axis] == "producer"]

    def _unread(self, number: int, axes: Iterable[int]) -> str | None:
        if number in self._spanned or any(self._roles[axis] == "consumer" for axis in axes):
            return None
        return "no layer reads them in the forward pass"

    def _layer(self, producers: Iterable[int]) -> str:
        """The producing layer that runs first; its name is the group's."""
        layers = [self._owner(axis) for axis in producers]
        return min(layers, key=lambda layer: self._order.get(layer, len(self._order)))

    def _owner(self, axis: int) -> str:
        """The module that holds the axis's parameter; for a parametrized one, the module that uses it."""
        module = self._provenance.axes[axis].parameter.rpartition(".")[0]
        return module.partition(".parametrizations.")[0].removesuffix(".parametrizations")

    def _signature(self, number: int, axes: Mapping[int, list[int]]) -> tuple[object, ...]:
        """Channels with equal signatures sit on the same axes with as many positions each."""
        return (
            frozenset((axis, len(positions)) for axis, positions in axes.items()),
            self._contraction_counts.get(number),
        )

    @cached_property
    def _contraction_counts(self) -> dict[int, frozenset[tuple[tuple[int, int], int]]]:
        counts: dict[int, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
        for t, term in enumerate(self._provenance.contractions):
            for a, axis in enumerate(term.axes):
                for label in axis[axis >= 0].tolist():
                    counts[int(self._classes[label])][t, a] += 1
        return {number: frozenset(found.items()) for number, found in counts.items()}

    # ---- groups

    def _name_groups(self) -> dict[str, list[int]]:
        """Groups by name, in network order; channels in the order of their first producer."""
        rows = []
        for numbers in self._prunable.values():
            producers = self._producers(self._channels[numbers[0]])
            layer = self._layer(producers)
            first = next(axis for axis in producers if self._owner(axis) == layer)
            rows.append((layer, sorted(numbers, key=lambda n: self._channels[n][first][0])))  # used at once
        rows.sort(key=lambda row: self._order.get(row[0], len(self._order)))
        named: dict[str, list[int]] = {}
        for layer, numbers in rows:
            count = sum(name.partition("#")[0] == layer for name in named)
            named[f"{layer}#{count + 1}" if count else layer] = numbers
        return named

    def _group(self, name: str, numbers: Sequence[int]) -> ChannelGroup:
        members = []
        for axis in sorted(self._channels[numbers[0]]):
            where = self._provenance.axes[axis]
            index = np.array([self._channels[number][axis] for number in numbers], dtype=np.int64)
            members.append(Member(where.parameter, where.axis, index, self._roles[axis]))
        mixes = {mixer for number in numbers for mixer in self._mixers.get(number, ())}
        return ChannelGroup(
            name, len(numbers), tuple(members), tuple(sorted(mixes)), spanned=not self._spanned.isdisjoint(numbers)
        )

    @cached_property
    def _mixers(self) -> dict[int, set[str]]:
        found: dict[int, set[str]] = defaultdict(set)
        for label, names in self._provenance.mixers().items():
            found[int(self._classes[label])] |= names
        return found

    # ---- sizes

    @cached_property
    def _group_of(self) -> dict[int, str]:
        return {number: name for name, numbers in self._named.items() for number in numbers}

    def _length(self, labels: IntArray) -> AxisLength:
        """The length of an axis as a function of group widths."""
        counts: dict[str, int] = defaultdict(int)
        constant = 0
        for label in labels.tolist():
            name = self._group_of.get(int(self._classes[label])) if label >= 0 else None
            if name is None:
                constant += 1
            else:
                counts[name] += 1
        return AxisLength(constant, {name: count // len(self._named[name]) for name, count in counts.items()})

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
