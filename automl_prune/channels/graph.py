"""The channel graph: a model's prunable groups, what is not prunable and why, and what widths cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn

from automl_prune.channels.group import ChannelGroup, Skipped
from automl_prune.channels.grouping import Attribute, Grouping
from automl_prune.channels.plan import Plan
from automl_prune.channels.trace import trace
from automl_prune.costs import CostModel, LiveTensor, PeakMemory, WidthPolynomial
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
        attributes: Sizes that modules hold as numbers and that follow the widths.
        tensors: What takes memory while one sample runs; empty when that is not known.
        further: Other costs that follow exactly from the widths, by metric name (``with_cost``).
    """

    groups: tuple[ChannelGroup, ...]
    skipped: tuple[Skipped, ...]
    shapes: Mapping[str, tuple[int, ...]]
    terms: tuple[Term, ...]
    parameter_terms: tuple[Term, ...]
    attributes: tuple[Attribute, ...] = ()
    tensors: tuple[LiveTensor, ...] = ()
    further: Mapping[str, CostModel] = field(default_factory=dict)

    @classmethod
    def trace(cls, model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> ChannelGraph:
        """Find the groups by running the model on example inputs (see ``channels/provenance.py``).

        Args:
            model: Any module; not changed.
            example_inputs: Positional inputs on the model's device; their first dimension is the batch.

        Raises:
            ModelError: The model cannot run on the inputs.
        """
        found = Grouping(model, trace(model, example_inputs))
        return cls(
            found.groups(),
            found.skipped(),
            {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]},
            found.terms(),
            found.parameter_terms(),
            found.attributes(),
            found.tensors(),
        )

    @cached_property
    def macs(self) -> WidthPolynomial:
        """Multiply-accumulates per sample as a polynomial of the group widths."""
        return WidthPolynomial(tuple(self.widths), self.terms)

    @cached_property
    def params(self) -> WidthPolynomial:
        """Number of parameters as a polynomial of the group widths."""
        return WidthPolynomial(tuple(self.widths), self.parameter_terms)

    @cached_property
    def cost_models(self) -> dict[str, CostModel]:
        """Every cost that follows from the widths, by metric name."""
        found: dict[str, CostModel] = {"macs": self.macs, "params": self.params}
        if self.tensors:
            found["memory"] = PeakMemory(tuple(self.widths), self.tensors)
        return {**found, **self.further}

    def with_cost(self, metric: str, cost: CostModel) -> ChannelGraph:
        """The graph whose plans have one cost more; its variables are the groups, in order."""
        return replace(self, further={**self.further, metric: cost})

    def axis_length(self, parameter: str, axis: int) -> AxisLength:
        """The length of an axis of a parameter or buffer as a function of the group widths."""
        positions = {
            group.name: member.index.shape[1]
            for group in self.groups
            for member in group.members
            if (member.parameter, member.axis) == (parameter, axis)
        }
        prunable = sum(count * self.widths[name] for name, count in positions.items())
        return AxisLength(self.shapes[parameter][axis] - prunable, positions)

    @cached_property
    def widths(self) -> dict[str, int]:
        """Dense width of every group, in order."""
        return {group.name: group.width for group in self.groups}

    @cached_property
    def dense_costs(self) -> dict[str, float]:
        """Every exact cost of the dense model, by metric name."""
        return {name: float(cost.at(self.widths)) for name, cost in self.cost_models.items()}

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the groups and the shapes they were found on."""
        content = [
            {name: list(shape) for name, shape in self.shapes.items()},
            [[g.name, [[m.parameter, m.axis, m.role, m.index.tolist()] for m in g.members]] for g in self.groups],
            [[a.module, a.name, [[s.constant, dict(s.positions)] for s in a.sizes]] for a in self.attributes],
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
            attributes=tuple(
                replace(a, sizes=tuple(_fix_length(size, fixed) for size in a.sizes)) for a in self.attributes
            ),
            tensors=tuple(replace(tensor, bytes=_fix(tensor.bytes, fixed)) for tensor in self.tensors),
        )

    def without_attributes(self, group: str) -> ChannelGraph:
        """The graph in which no number held by a module follows the width of a group."""
        return replace(self, attributes=tuple(a for a in self.attributes if not a.follows(group)))


def _fix(term: Term, fixed: Mapping[str, ChannelGroup]) -> Term:
    """The term with some groups' widths put in as constants."""
    return replace(term, axes=tuple(_fix_length(axis, fixed) for axis in term.axes))


def _fix_length(length: AxisLength, fixed: Mapping[str, ChannelGroup]) -> AxisLength:
    return AxisLength(
        length.constant + sum(count * fixed[name].width for name, count in length.positions.items() if name in fixed),
        {name: count for name, count in length.positions.items() if name not in fixed},
    )
