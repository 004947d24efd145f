"""A plan: which channels of each group stay. Checked when made, so whoever holds one may apply it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from automl_prune.costs import Cost, cost_metrics
from automl_prune.errors import PlanError

if TYPE_CHECKING:
    from automl_prune.channels.graph import ChannelGraph

Slices = Mapping[str, Mapping[int, tuple[int, ...]]]
"""Kept positions by parameter (or buffer) and axis; axes that keep everything are absent."""

Sizes = Mapping[str, Mapping[str, int | list[int]]]
"""New values of attributes that hold sizes, by module and attribute; those that keep their value are absent."""


@dataclass(frozen=True)
class Plan:
    """Kept channels of every group, in increasing order. Make it with ``ChannelGraph.plan``.

    Attributes:
        graph: The groups it speaks of.
        kept: Indices by group name; every group is present.
    """

    graph: ChannelGraph
    kept: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, graph: ChannelGraph, kept: Mapping[str, Sequence[int]]) -> Plan:
        """Check and complete ``kept``; see ``ChannelGraph.plan``."""
        complete = {group.name: tuple(range(group.width)) for group in graph.groups}
        for name, indices in kept.items():
            width = graph[name].width
            chosen = sorted(int(i) for i in indices)
            if not chosen:
                raise PlanError(f"group {name!r} would keep no channel; keep at least 1 of its {width}")
            if chosen[0] < 0 or chosen[-1] >= width:
                wrong = [i for i in chosen if not 0 <= i < width]
                raise PlanError(f"group {name!r} has channels 0 to {width - 1}; {wrong[:5]} are outside")
            if len(set(chosen)) != len(chosen):
                raise PlanError(f"group {name!r} names a channel twice among the kept ones")
            complete[name] = tuple(chosen)
        return cls(graph, MappingProxyType(complete))

    @property
    def widths(self) -> dict[str, int]:
        """Kept width of every group."""
        return {name: len(indices) for name, indices in self.kept.items()}

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify the kept channels of this graph."""
        content = [self.graph.digest, {name: list(indices) for name, indices in self.kept.items()}]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def slices(self) -> Slices:
        """The plan by parameter: kept positions of every axis that loses some."""
        removed: dict[tuple[str, int], list[int]] = {}
        for group in self.graph.groups:
            gone = np.setdiff1d(np.arange(group.width), self.kept[group.name])
            if gone.size:
                for member in group.members:
                    removed.setdefault((member.parameter, member.axis), []).extend(
                        member.index[gone].reshape(-1).tolist()
                    )
        slices: dict[str, dict[int, tuple[int, ...]]] = {}
        for (parameter, axis), positions in removed.items():
            every = np.arange(self.graph.shapes[parameter][axis])
            slices.setdefault(parameter, {})[axis] = tuple(np.setdiff1d(every, positions).tolist())
        return slices

    @cached_property
    def sizes(self) -> Sizes:
        """Numbers that modules hold and that follow the kept widths (see ``ChannelGraph.attributes``)."""
        found: dict[str, dict[str, int | list[int]]] = {}
        for attribute in self.graph.attributes:
            value = attribute.at(self.widths)
            if value != attribute.at(self.graph.widths):
                found.setdefault(attribute.module, {})[attribute.name] = value
        return found

    def compose(self, later: Plan) -> Plan:
        """This plan and then another one, made on the model that this one gives, as one plan of the dense model.

        Args:
            later: A plan of a graph traced on ``prune(model, self)``.

        Raises:
            PlanError: The later plan is of another model, or removes what no plan of the dense model can.
        """
        shapes = {name: list(shape) for name, shape in self.graph.shapes.items()}
        for name, axes in self.slices.items():
            for axis, positions in axes.items():
                shapes[name][axis] = len(positions)
        if {name: tuple(shape) for name, shape in shapes.items()} != dict(later.graph.shapes):
            raise PlanError("the later plan is not of the model that the first one gives; trace prune(model, plan)")
        removed = {
            (name, axis): set(range(size)) - set(self._both(later, name, axis, size))
            for name, shape in self.graph.shapes.items()
            for axis, size in enumerate(shape)
        }
        kept = {
            group.name: [
                channel
                for channel in range(group.width)
                if not all(set(m.index[channel].tolist()) <= removed[m.parameter, m.axis] for m in group.members)
            ]
            for group in self.graph.groups
        }
        plan = Plan.of(self.graph, kept)
        for (name, axis), gone in removed.items():
            size = self.graph.shapes[name][axis]
            if set(range(size)) - set(plan.slices.get(name, {}).get(axis, range(size))) != gone:
                raise PlanError(
                    f"the later plan removes positions of {name!r}, axis {axis}, that are protected or tied in the "
                    "dense model; trace the dense model again and prune it once"
                )
        return plan

    def _both(self, later: Plan, name: str, axis: int, size: int) -> list[int]:
        """Positions of the dense axis that are left after both plans."""
        first = self.slices.get(name, {}).get(axis, tuple(range(size)))
        return [first[i] for i in later.slices.get(name, {}).get(axis, range(len(first)))]

    def costs(self) -> dict[str, Cost]:
        """Exact costs of the pruned model by metric name, without building it."""
        return {
            name: Cost(name, float(cost.at(self.widths)), self.graph.dense_costs[name])
            for name, cost in self.graph.cost_models.items()
        }

    def explain(self) -> str:
        """A table for people: every group's widths and the layers it touches, and the costs."""
        lines = [f"{'group':32} {'kept':>11}  removed from"]
        for group in self.graph.groups:
            layers = list(dict.fromkeys(member.parameter.rpartition(".")[0] for member in group.members))
            touched = ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
            lines.append(f"{group.name:32} {len(self.kept[group.name]):5}/{group.width:<5}  {touched}")
        lines += [
            f"{c.metric}: {cost_metrics[c.metric].show(c.dense)} -> {cost_metrics[c.metric].show(c.value)} "
            f"({100 * c.ratio:.1f} %)"
            for c in self.costs().values()
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form that can be applied without tracing: kept channels, slices and dense shapes."""
        return {
            "kept": {name: list(indices) for name, indices in self.kept.items()},
            "slices": {
                name: {str(axis): list(indices) for axis, indices in axes.items()} for name, axes in self.slices.items()
            },
            "sizes": {name: dict(attributes) for name, attributes in self.sizes.items()},
            "shapes": {name: list(self.graph.shapes[name]) for name in self.slices},
            "digest": self.digest,
        }
