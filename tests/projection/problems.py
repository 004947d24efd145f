"""Chains of convolutions, spaces and random problems for the tests of projecting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from automl_prune.channels import ChannelGraph, ChannelGroup
from automl_prune.costs.polynomial import AxisLength, Term
from automl_prune.projection import Projector
from automl_prune.space import ChoiceParameter, Space


def chain(widths: list[int], sizes: list[int] | None = None) -> ChannelGraph:
    """A chain of 3x3 convolutions of given widths on given numbers of positions, 3 channels in, 10 classes out."""
    names = [f"conv{i}" for i in range(len(widths))]
    axes = [AxisLength(3, {}), *(AxisLength(0, {name: 1}) for name in names), AxisLength(10, {})]
    layers = list(zip([*names, "fc"], pairwise(axes), sizes or [16] * len(axes[1:]), strict=True))
    return ChannelGraph(
        groups=tuple(ChannelGroup(name, width, ()) for name, width in zip(names, widths, strict=True)),
        skipped=(),
        shapes={},
        terms=tuple(Term(name, 9 * size, pair) for name, pair, size in layers),
        parameter_terms=tuple(Term(name, 9, pair) for name, pair, _ in layers),
    )


def space(**values: Any) -> Space:
    return Space.parse({"criteria": ["l1"], "min_width": 1, **values}, source="test")


def even(graph: ChannelGraph) -> dict[str, dict[str, torch.Tensor]]:
    """Scores that say nothing."""
    return {"l1": {group.name: torch.ones(group.width) for group in graph.groups}}


def projector(graph: ChannelGraph, limits: Mapping[str, float], **values: Any) -> Projector:
    return Projector(graph, space(**values), limits, even(graph))


@dataclass(frozen=True)
class Problem:
    """A projection problem with everything random."""

    graph: ChannelGraph
    space: Space
    limits: dict[str, float]
    scores: dict[str, dict[str, torch.Tensor]]
    point: dict[str, float | str]

    @property
    def allowed(self) -> dict[str, tuple[int, ...]]:
        return {name: limits.widths() for name, limits in self.space.limits(self.graph.groups).items()}

    def projector(self) -> Projector:
        return Projector(self.graph, self.space, self.limits, self.scores)

    def widths(self, **point: float | str) -> dict[str, int]:
        return self.projector().candidate({**self.point, **point}).widths

    def cost(self, metric: str, widths: Mapping[str, int]) -> float:
        return self.graph.cost_models[metric].at(widths)

    def bounds(self, share: float, whole: Mapping[str, int]) -> dict[str, float]:
        """The bounds that the documentation gives a share of the budget, by metric.

        Args:
            share: Of the budget.
            whole: The widths at the whole budget. They stop at the first budget where it alone keeps each group from
                its next width.
        """
        metric = next(iter(self.limits))
        least = self.cost(metric, {name: widths[0] for name, widths in self.allowed.items()})
        spent = min(self.limits[metric], self.cost(metric, self.graph.widths))
        wider = [
            {**whole, name: min(width for width in widths if width > whole[name])}
            for name, widths in self.allowed.items()
            if whole[name] < widths[-1]
        ]
        if len(self.limits) > 1 and any(self.cost(metric, each) <= self.limits[metric] for each in wider):
            spent = self.cost(metric, whole)
        return {**self.limits, metric: min(self.limits[metric], max(least, share * spent))}

    def meets(self, widths: Mapping[str, int], **point: float | str) -> bool:
        """Whether widths are within the budgets and the target of the point, changed as given."""
        point = {**self.point, **point}
        bounds = self.bounds(float(point["target_cost"]), self.widths(**{**point, "target_cost": 1.0}))
        return all(self.cost(metric, widths) <= bound for metric, bound in bounds.items())


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(1, 64), min_size=count + 1, max_size=count + 1))
    graph = chain(draw(st.lists(st.integers(1, 40), min_size=count, max_size=count)), sizes)
    chosen = Space.parse(
        {
            "criteria": ["l1", "l2"],
            "criterion_scope": "group",
            "importance_exponent": [-2, 4],
            "residual": 1.0,
            "target_cost": 0.3,
            "round_to": draw(st.integers(1, 9)),
            "min_width": draw(st.integers(1, 9)),
            "max_prune_ratio": draw(st.floats(0, 1)),
            "exclude": draw(st.sampled_from([[], [], ["conv0"]])),
        },
        source="test",
    )
    narrowest = {name: limits.low for name, limits in chosen.limits(graph.groups).items()}
    metrics = draw(st.sampled_from([("macs",), ("params",), ("macs", "params"), ("params", "macs")]))
    limits = {}
    for metric in metrics:
        least, most = (graph.cost_models[metric].at(widths) for widths in (narrowest, graph.widths))
        limits[metric] = least + draw(st.floats(0, 1.2)) * (most - least)
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    scores = {
        criterion: {group.name: torch.from_numpy(rng.gamma(0.5, size=group.width) + 1e-9) for group in graph.groups}
        for criterion in ("l1", "l2")
    }
    point: dict[str, float | str] = {}
    for parameter in chosen.parameters(list(graph.widths)):
        if isinstance(parameter, ChoiceParameter):
            point[parameter.name] = draw(st.sampled_from(parameter.choices))
        else:
            point[parameter.name] = draw(st.floats(parameter.low, parameter.high))
    return Problem(graph, chosen, limits, scores, point)
