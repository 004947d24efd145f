"""The channel graph: a model's prunable groups, what is not prunable and why, and its costs as polynomials."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from automl_prune.channels.group import ChannelGroup, Member, Role, Skipped
from automl_prune.channels.plan import Plan
from automl_prune.channels.provenance import NONE, IntArray, ParameterAxis, Provenance
from automl_prune.channels.trace import trace
from automl_prune.costs import WidthPolynomial
from automl_prune.costs.polynomial import AxisLength, Term
from automl_prune.errors import PlanError
from automl_prune.registry import nearest


@dataclass(frozen=True)
class ChannelGraph:
    """A model's channel groups. Immutable; holds names and indices, no weights.

    Attributes:
        groups: What can be pruned, in the order the network runs.
        skipped: What cannot, and why.
        shapes: Shape of every parameter and buffer of the dense model, by name.
        terms: Multiply-accumulates per sample, a term per convolution and matrix product.
        parameter_terms: Number of parameters, a term per parameter.
    """

    groups: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...]
    shapes: Mapping[str, tuple[int, ...]]
    terms: tuple[Term, ...]
    parameter_terms: tuple[Term, ...]

    @classmethod
    def trace(cls, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> ChannelGraph:
        """Find the groups by running the model on example inputs (see ``channels/provenance.py``).

        Args:
            model: Any module; not changed.
            example_inputs: Positional inputs on the model's device; their first dimension is the batch.

        Raises:
            ModelError: The model cannot run on the inputs.
        """
        return _Grouping(model, trace(model, example_inputs)).graph()

    @cached_property
    def macs(self) -> WidthPolynomial:
        """Multiply-accumulates per sample as a polynomial of the group widths."""
        return WidthPolynomial(tuple(self.widths), self.terms)

    @cached_property
    def params(self) -> WidthPolynomial:
        """Number of parameters as a polynomial of the group widths."""
        return WidthPolynomial(tuple(self.widths), self.parameter_terms)

    @property
    def polynomials(self) -> dict[str, WidthPolynomial]:
        """Every exact cost by metric name."""
        return {"macs": self.macs, "params": self.params}

    @cached_property
    def widths(self) -> dict[str, int]:
        """Dense width of every group, in order."""
        return {group.name: group.width for group in self.groups}

    @cached_property
    def dense_costs(self) -> dict[str, float]:
        """Every exact cost of the dense model, by metric name."""
        return {name: float(polynomial.at(self.widths)) for name, polynomial in self.polynomials.items()}

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the groups and the shapes they were found on."""
        content = [
            {name: list(shape) for name, shape in self.shapes.items()},
            [[g.name, [[m.parameter, m.axis, m.role, m.index.tolist()] for m in g.members]] for g in self.groups],
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def __getitem__(self, name: str) -> ChannelGroup:
        for group in self.groups:
            if group.name == name:
                return group
        raise PlanError(f"no prunable channel group is named {name!r}; {nearest(name, self.widths)}")

    def plan(self, kept: Mapping[str, Sequence[int]]) -> Plan:
        """A validated plan; groups that are not named keep all their channels.

        Args:
            kept: Channels to keep by group name, indices in [0, width).

        Raises:
            PlanError: An unknown group, an index out of range or given twice, or nothing kept.
        """
        return Plan.of(self, kept)

    def without(self, protected: Mapping[str, str]) -> ChannelGraph:
        """The graph with some groups no longer prunable, each with its reason."""
        fixed = {name: self[name] for name in protected}
        skipped = [Skipped(name, group.width, protected[name]) for name, group in fixed.items()]
        return replace(
            self,
            groups=tuple(group for group in self.groups if group.name not in fixed),
            skipped=(*self.skipped, *skipped),
            terms=tuple(_fix(term, fixed) for term in self.terms),
            parameter_terms=tuple(_fix(term, fixed) for term in self.parameter_terms),
        )


def _fix(term: Term, fixed: Mapping[str, ChannelGroup]) -> Term:
    """The term with some groups' widths put in as constants."""
    axes = tuple(
        AxisLength(
            axis.constant + sum(count * fixed[name].width for name, count in axis.positions.items() if name in fixed),
            {name: count for name, count in axis.positions.items() if name not in fixed},
        )
        for axis in term.axes
    )
    return replace(term, axes=axes)


class _Grouping:
    """From labels to groups: classes of tied labels are channels, channels on the same axes are one group."""

    def __init__(self, model: nn.Module, provenance: Provenance) -> None:
        self.model = model
        self.provenance = provenance
        self.classes = provenance.classes()
        self.starts = np.array([axis.start for axis in provenance.axes], dtype=np.int64)
        self.axis_of = np.repeat(np.arange(len(provenance.axes)), [axis.length for axis in provenance.axes])
        produced, consumed = provenance.produced_mask(), provenance.consumed_mask()
        self.roles: list[Role] = [
            "consumer" if consumed[a.start] else "producer" if produced[a.start] else "channelwise"
            for a in provenance.axes
        ]
        self.order = {term.layer: i for i, term in reversed(list(enumerate(provenance.contractions)))}

    def graph(self) -> ChannelGraph:
        channels = self._channels()
        prunable: dict[tuple[object, ...], list[int]] = defaultdict(list)
        skipped: dict[tuple[str, str], int] = defaultdict(int)
        reasons = {int(self.classes[label]): reason for label, reason in reversed(self.provenance.reasons().items())}
        for number, axes in channels.items():
            producers = [axis for axis in axes if self.roles[axis] == "producer"]
            if not producers:
                continue  # an axis that reads the input, or a parameter no layer produces channels for
            reason = reasons.get(number) or self._unread(axes)
            if reason:
                skipped[self._layer(producers), reason] += 1
            else:
                prunable[self._signature(number, axes)].append(number)
        named = self._named(prunable, channels)
        lengths = self._lengths(named)
        return ChannelGraph(
            groups=tuple(self._group(name, numbers, channels) for name, numbers in named.items()),
            skipped=tuple(Skipped(name, width, reason) for (name, reason), width in skipped.items()),
            shapes={name: tuple(t.shape) for name, t in [*self.model.named_parameters(), *self.model.named_buffers()]},
            terms=tuple(
                Term(term.layer, term.coefficient, tuple(lengths(axis) for axis in term.axes))
                for term in self.provenance.contractions
            ),
            parameter_terms=tuple(self._parameter_terms(lengths)),
        )

    def _channels(self) -> dict[int, dict[int, list[int]]]:
        """Class of labels -> parameter axis -> the class's positions there; classes that are never removed too."""
        found: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
        positions = np.arange(len(self.classes)) - self.starts[self.axis_of] if len(self.classes) else self.classes
        rows = zip(self.classes.tolist(), self.axis_of.tolist(), positions.tolist(), strict=True)
        for number, axis, position in rows:
            found[number][axis].append(position)
        return found

    def _unread(self, axes: Mapping[int, list[int]]) -> str | None:
        if any(self.roles[axis] == "consumer" for axis in axes) or self._contracted(axes):
            return None
        return "no layer reads them in the forward pass"

    def _contracted(self, axes: Mapping[int, list[int]]) -> bool:
        """Whether a product of two activations contracts or carries them (attention)."""
        mine = {int(self.classes[self.provenance.axes[axis].start + at[0]]) for axis, at in axes.items()}
        return bool(mine & self._activation_classes)

    @cached_property
    def _activation_classes(self) -> set[int]:
        sizes = [axis for term in self.provenance.contractions if len(term.axes) > 2 for axis in term.axes]
        return {int(self.classes[label]) for axis in sizes for label in axis.tolist() if label != NONE}

    def _layer(self, producers: Iterable[int]) -> str:
        """The producing layer that runs first; its name is the group's."""
        layers = [self.provenance.axes[axis].parameter.rpartition(".")[0] for axis in producers]
        return min(layers, key=lambda layer: self.order.get(layer, len(self.order)))

    def _signature(self, number: int, axes: Mapping[int, list[int]]) -> tuple[object, ...]:
        """Channels with equal signatures sit on the same axes with as many positions each."""
        return (
            frozenset((axis, len(positions)) for axis, positions in axes.items()),
            self._contraction_counts.get(number),
        )

    @cached_property
    def _contraction_counts(self) -> dict[int, frozenset[tuple[tuple[int, int], int]]]:
        counts: dict[int, dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
        for t, term in enumerate(self.provenance.contractions):
            for a, axis in enumerate(term.axes):
                for label in axis[axis != NONE].tolist():
                    counts[int(self.classes[label])][t, a] += 1
        return {number: frozenset(found.items()) for number, found in counts.items()}

    def _named(
        self,
        prunable: Mapping[tuple[object, ...], list[int]],
        channels: Mapping[int, Mapping[int, list[int]]],
    ) -> dict[str, list[int]]:
        """Groups by name, in network order; channels in the order of their first producer."""
        rows = []
        for numbers in prunable.values():
            producers = [axis for axis in channels[numbers[0]] if self.roles[axis] == "producer"]
            layer = self._layer(producers)
            first = next(a for a in producers if self.provenance.axes[a].parameter.rpartition(".")[0] == layer)
            rows.append((layer, sorted(numbers, key=lambda n: channels[n][first][0])))  # used at once
        rows.sort(key=lambda row: self.order.get(row[0], len(self.order)))
        named: dict[str, list[int]] = {}
        for layer, numbers in rows:
            count = sum(name.partition("#")[0] == layer for name in named)
            named[f"{layer}#{count + 1}" if count else layer] = numbers
        return named

    def _group(
        self, name: str, numbers: Sequence[int], channels: Mapping[int, Mapping[int, list[int]]]
    ) -> ChannelGroup:
        members = []
        for axis in sorted(channels[numbers[0]]):
            where: ParameterAxis = self.provenance.axes[axis]
            index = np.array([channels[number][axis] for number in numbers], dtype=np.int64)
            members.append(Member(where.parameter, where.axis, index, self.roles[axis]))
        return ChannelGroup(name, len(numbers), tuple(members))

    def _lengths(self, named: Mapping[str, Sequence[int]]) -> _Lengths:
        owner = {number: name for name, numbers in named.items() for number in numbers}
        widths = {name: len(numbers) for name, numbers in named.items()}
        return _Lengths(self.classes, owner, widths)

    def _parameter_terms(self, lengths: _Lengths) -> Iterable[Term]:
        labelled = {(axis.parameter, axis.axis): axis for axis in self.provenance.axes}
        for name, parameter in self.model.named_parameters():
            axes = []
            for dim, size in enumerate(parameter.shape):
                found = labelled.get((name, dim))
                axes.append(lengths(np.arange(found.start, found.start + size)) if found else AxisLength(size, {}))
            constant = [axis for axis in axes if not axis.positions]
            yield Term(
                name,
                int(np.prod([a.constant for a in constant], dtype=np.int64)),
                tuple(a for a in axes if a.positions),
            )


class _Lengths:
    """Turns the labels along an axis into its length as a function of group widths."""

    def __init__(self, classes: IntArray, owner: Mapping[int, str], widths: Mapping[str, int]) -> None:
        self.classes, self.owner, self.widths = classes, owner, widths

    def __call__(self, labels: IntArray) -> AxisLength:
        counts: dict[str, int] = defaultdict(int)
        constant = 0
        for label in labels.tolist():
            name = self.owner.get(int(self.classes[label])) if label != NONE else None
            if name is None:
                constant += 1
            else:
                counts[name] += 1
        return AxisLength(constant, {name: count // self.widths[name] for name, count in counts.items()})
