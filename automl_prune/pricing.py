"""What candidates cost: exact from their widths, and where latency matters predicted first and then measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.budget import Budget
from automl_prune.channels import ChannelGraph
from automl_prune.costs import Cost, CostModel
from automl_prune.costs.latency import LatencySettings, runtimes
from automl_prune.costs.predictor import LatencyPredictor, replace_predictor
from automl_prune.errors import StudyError
from automl_prune.export.size import file_size
from automl_prune.files import tensors_digest
from automl_prune.latency import Meter, aim_within, predictor_of
from automl_prune.meter import LatencyMeter
from automl_prune.projection.allowed import AllowedWidths
from automl_prune.projection.rounding import choose_rounding
from automl_prune.projection.widening import Widening
from automl_prune.space import Space
from automl_prune.tasks import Task
from automl_prune.view import View

MakeMeter = Callable[[nn.Module, ChannelGraph, tuple[torch.Tensor, ...], float | None], Meter]
"""A meter of a model, its groups and example inputs; given the dense model's seconds where they are known."""


@dataclass(frozen=True)
class Prices:
    """The costs of a model's candidates. Immutable.

    Attributes:
        graph: The channel graph; its plans have every exact cost that the budget bounds.
        dense: Costs of the dense model by metric, measured where they are not exact.
        limits: Absolute bounds by metric, in the budget's order.
        predicted: Cost models beside the graph's own.
        meter: Of latency; it measures nothing before it is asked.
        allowed: Widths by group where they were chosen by measuring; None leaves them to the space.
        predictor: Of latency, when the budget or the space asks for it.
        aim: Seconds that candidates are predicted to take at most, when the budget bounds latency.
    """

    graph: ChannelGraph
    dense: Mapping[str, float]
    limits: Mapping[str, float]
    predicted: Mapping[str, CostModel]
    meter: Meter
    allowed: Mapping[str, tuple[int, ...]] | None = None
    predictor: LatencyPredictor | None = None
    aim: float | None = None

    @property
    def projected(self) -> dict[str, float]:
        """The bounds that candidates are projected to: the limits, but for latency ``aim``."""
        return {**self.limits, **({} if self.aim is None else {"latency": self.aim})}

    @property
    def identity(self) -> dict[str, Any]:
        """What latencies were measured on and are predicted by, JSON-ready; empty without latency."""
        if self.predictor is None:
            return {}
        return {
            "latency": {**self.meter.fingerprint.to_json(), "dense": self.predictor.dense},
            "predictor": self.predictor.digest,
        }

    def measured(self, widths: Mapping[str, int]) -> dict[str, Cost]:
        """What only measuring tells of the model of some widths, by metric; empty without latency."""
        if self.predictor is None:
            return {}
        return {"latency": replace(self.meter.cost(widths), predicted=self.predictor.at(widths))}


def measuring(settings: LatencySettings) -> MakeMeter:
    """Makes meters that measure with some settings."""
    return lambda model, graph, inputs, reference: LatencyMeter(model, graph, inputs, settings, reference)


def check_machine(settings: LatencySettings, stored: Mapping[str, Any]) -> None:
    """Latencies compare only when they were measured alike; says what differs here, before anything is measured.

    Args:
        settings: How latency would be measured here.
        stored: What a study's latencies were measured on (``Prices.identity``).

    Raises:
        StudyError: Something differs.
    """
    here = runtimes[settings.runtime].fingerprint(settings).to_json()
    wrong = [f"{name}: {value}, not {stored.get(name)}" for name, value in here.items() if value != stored.get(name)]
    if wrong:
        raise StudyError(
            f"this machine cannot measure latency for the study ({'; '.join(wrong)}); join it from a machine of the "
            "same kind, with the same latency section"
        )


def price(
    model: nn.Module,
    graph: ChannelGraph,
    task: Task,
    budget: Budget,
    space: Space,
    *,
    make_meter: MakeMeter,
    path: Path | None,
    seed: int,
    view: View,
) -> Prices:
    """Find out what the budget and the space need to know.

    Args:
        model: The dense model; not changed.
        graph: Its proved channel graph.
        task: Its data.
        budget: ``size`` exports the dense model once, ``latency`` measures some candidates.
        space: ``round_to: auto`` measures them too.
        make_meter: What measures latency here.
        path: Where the predictor of latency is kept.
        seed: Of the widths that are measured.
        view: Where progress goes.

    Raises:
        BudgetError: The bound on latency cannot be reached.
        ConfigError: The runtime that is to measure latency is not there.
        ExportError: The model cannot be exported.
    """
    example = tuple(tensor[:1].cpu() for tensor in task.example_inputs)
    if "size" in budget.metrics:
        graph = graph.with_cost("size", file_size(model, graph, task))
    if "latency" not in budget.metrics and space.round_to != "auto":
        meter = make_meter(model, graph, example, None)
        return Prices(graph, graph.dense_costs, budget.limits(graph.dense_costs), {}, meter)
    limits = space.limits(graph.groups)
    meter, predictor = predictor_of(
        lambda reference: make_meter(model, graph, example, reference),
        graph,
        [own.low for own in limits.values()],
        model=tensors_digest(model.state_dict()),
        path=path,
        seed=seed,
        view=view,
    )
    allowed = None
    if space.round_to == "auto":
        rounding = choose_rounding(predictor, graph.macs, {name: own.widths() for name, own in limits.items()})
        allowed = rounding.allowed
        view.say(f"Searched are {rounding.reason}")
    dense = {**graph.dense_costs, "latency": predictor.dense}
    prices = Prices(graph, dense, budget.limits(dense), {"latency": predictor}, meter, allowed, predictor)
    if "latency" not in prices.limits:
        return prices
    fastest = _fastest(prices, allowed or {name: own.widths() for name, own in limits.items()})
    aim, known = aim_within(prices.limits["latency"], predictor, meter, fastest, view)
    if known is not predictor and path is not None:
        replace_predictor(path, known)
    return replace(prices, predicted={"latency": known}, predictor=known, aim=aim)


def _fastest(prices: Prices, allowed: Mapping[str, tuple[int, ...]]) -> list[tuple[int, ...]]:
    """The widths that are predicted to be fastest within the other budgets, and the narrowest of all.

    Empty where no widths are within the other budgets, which the projection refuses.
    """
    choice = AllowedWidths(tuple(allowed[name] for name in prices.graph.widths))
    others = {metric: limit for metric, limit in prices.limits.items() if metric != "latency"}
    costs = {**prices.graph.cost_models, **prices.predicted}
    found = Widening(choice, costs, {"latency": math.inf, **others}).cheapest()
    return [] if found is None else [tuple(widths.tolist()) for widths in (found, choice.lowest)]
