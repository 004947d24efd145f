"""What the dense model costs, and what of it can be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from automl_prune.budget import Budget
from automl_prune.channels import ChannelGraph
from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.costs.latency import OTHER, LatencyMeasurement, LatencySettings
from automl_prune.errors import BudgetError
from automl_prune.meter import LatencyMeter, check_available
from automl_prune.projection import Projector
from automl_prune.session import choose_device, trace_and_prove
from automl_prune.space import Space
from automl_prune.tasks import Task
from automl_prune.view import Silent, View

SHOWN = 10
"""Layers of a profile that are listed, the slowest first."""


@dataclass(frozen=True, slots=True)
class DenseLatency:
    """The dense model's measured latency.

    Attributes:
        measurement: Of the dense model beside itself.
        layers: Seconds by weight of the layers, and all the rest; empty where the runtime does not tell.
    """

    measurement: LatencyMeasurement
    layers: Mapping[str, float]

    def explain(self) -> str:
        """The latency, what it was measured on, and the slowest layers."""
        found, place = self.measurement, self.measurement.fingerprint
        low, high = found.interval
        lines = [
            f"latency: {found.seconds * 1e3:.4g} ms for a batch of {place.batch_size} ({place.describe()}); "
            f"measured beside itself: {low:.3f} to {high:.3f}"
        ]
        if found.noisy:
            lines.append(f"noisy: {found.noisy}")
        rows = _slowest(self.layers)
        if rows:
            total = sum(self.layers.values())
            lines.append("by layer, as the runtime's profiler sees them, which takes time itself: compare shares")
            lines.append(f"{'layer':40} {'ms':>8} {'share':>7}")
            lines += [f"{name:40} {taken * 1e3:8.4f} {taken / total:7.1%}" for name, taken in rows]
        return "\n".join(lines)


def _slowest(layers: Mapping[str, float]) -> list[tuple[str, float]]:
    """The slowest layers, the others together, and what is no layer."""
    known = sorted(((name, taken) for name, taken in layers.items() if name != OTHER), key=lambda row: -row[1])
    rows, rest = known[:SHOWN], known[SHOWN:]
    if rest:
        rows.append((f"{len(rest)} more layers", sum(taken for _, taken in rest)))
    if OTHER in layers:
        rows.append(("all that is no layer", layers[OTHER]))
    return rows


@dataclass(frozen=True, slots=True)
class Profile:
    """The dense model's structure and costs.

    Attributes:
        graph: Its proved channel groups.
        reachable: Least and highest exact costs of the search space, by metric.
        budget: Whether the budget can be reached, for people.
        latency: As the configuration's ``latency`` section says.
    """

    graph: ChannelGraph
    reachable: Mapping[str, tuple[float, float]]
    budget: str
    latency: DenseLatency

    def explain(self) -> str:
        """Tables for people."""
        lines = [self.graph.plan({}).explain(), ""]
        for metric, (least, _) in self.reachable.items():
            lines.append(f"reachable with the search space: {metric} from {least / self.graph.dense_costs[metric]:.1%}")
        lines += [self.budget]
        lines += [
            f"recomputed from what is left: {', '.join(g.mixes)} over {g.name}" for g in self.graph.groups if g.mixes
        ]
        lines += [f"protected: {s.name} ({s.width} channels): {s.reason}" for s in self.graph.skipped]
        lines += ["", self.latency.explain()]
        return "\n".join(lines)


def profile(config: Config, view: View | None = None) -> Profile:
    """Trace and prove the configured model, measure its latency, and say what it costs; its weights are not needed.

    Raises:
        ModelError: Nothing is prunable.
        ExportError: The model cannot be exported to measure it.
        ConfigError: The runtime's provider is not there.
    """
    view, settings = view or Silent(), config.latency.settings()
    check_available(settings)
    task, model = config.build_task(), config.build_model()
    weights = config.model.weights
    if weights and Path(weights).is_file():
        load_weights(model, Path(weights))
    elif weights:
        view.say(f"model.weights: {weights} is not there; a search needs it, costs and structure do not")
    device = choose_device(config.device)
    graph = trace_and_prove(model.to(device), task, device, view)
    space = config.load_space()
    limits = space.limits(graph.groups)
    low, high = ({name: getattr(limit, end) for name, limit in limits.items()} for end in ("low", "high"))
    reachable = {n: (float(p.at(low)), float(p.at(high))) for n, p in graph.cost_models.items()}
    verdict = _reach(config.parsed_budget(), graph, space)
    return Profile(graph, reachable, verdict, _latency(model, graph, task, settings, view))


def _reach(budget: Budget, graph: ChannelGraph, space: Space) -> str:
    """Whether the bounds on what is known of the structure can be met together; the others take a search."""
    dense = graph.dense_costs
    known = {name: bound.limit(dense[name]) for name, bound in budget.bounds.items() if name in dense}
    others = [bound.given for name, bound in budget.bounds.items() if name not in dense]
    said = [f"budget {', '.join(others)}: only a search can tell whether it can be reached"] if others else []
    if known:
        given = ", ".join(bound.given for name, bound in budget.bounds.items() if name in known)
        even = {name: {g.name: torch.ones(g.width) for g in graph.groups} for name in space.criteria}
        try:
            Projector(graph, space, known, even)
            said.insert(0, f"budget {given}: can be reached")
        except BudgetError as error:
            said.insert(0, str(error))
    return "\n".join(said)


def _latency(model: nn.Module, graph: ChannelGraph, task: Task, settings: LatencySettings, view: View) -> DenseLatency:
    meter = LatencyMeter(model, graph, task.example_inputs, settings)
    with view.stage("Measuring latency") as stage:
        measurement = meter.dense()
        stage(1, 2)
        layers = meter.profile({}) if meter.tells_layers else {}
        stage(2, 2)
    return DenseLatency(measurement, layers)
