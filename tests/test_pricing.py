"""Latency of candidates: measured for some, predicted in the projection, measured for every one that is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from automl_prune.budget import Budget
from automl_prune.channels import ChannelGraph
from automl_prune.costs import Cost
from automl_prune.costs.latency import Fingerprint, LatencyMeasurement, LatencySettings, runtimes
from automl_prune.errors import BudgetError, StudyError
from automl_prune.evaluation import Recipe
from automl_prune.latency import layers_of
from automl_prune.pricing import check_machine, price
from automl_prune.projection import Projector
from automl_prune.session import Session
from automl_prune.space import Space
from automl_prune.study.codec import violations
from automl_prune.tasks.classification import Classification
from automl_prune.view import Silent
from tests.views import Recorder


class MadeUpMeter:
    """A machine on which layers are fast when both their widths are multiples of 4; counts what it measured."""

    def __init__(self, graph: ChannelGraph, reference: float | None, machine: str = "made up") -> None:
        self.graph, self.measured, self.slower = graph, 0, 1.0
        self.fingerprint = Fingerprint("made up", "none", machine, 1, 1, 1, "wall")
        self._layers = layers_of(graph)
        self.reference = reference if reference is not None else sum(self.profile(graph.widths).values())

    def quick(self) -> MadeUpMeter:
        return self

    def cost(self, widths: Mapping[str, int]) -> Cost:
        self.measured += 1
        return Cost("latency", self.slower * sum(self.profile(widths).values()), self.reference)

    def measure_export(self, file: bytes, model: nn.Module) -> LatencyMeasurement:
        return LatencyMeasurement(((1.0,),) * 6, ((1.0,),) * 6, self.reference, self.fingerprint)

    def profile(self, widths: Mapping[str, int]) -> Mapping[str, float]:
        found = {"other": 1e-7}
        for layer in self._layers:
            read, made = layer.inputs.at(widths), layer.outputs.at(widths)
            ends = [end for end, axis in ((read, layer.inputs), (made, layer.outputs)) if axis.positions]
            slow = 1.0 if all(end % 4 == 0 for end in ends) else 1.8
            found[layer.name] = 1e-9 + slow * read * made * layer.places * 1e-10
        return found


class Workshop:
    """Makes meters and keeps them."""

    kind = MadeUpMeter

    def __init__(self, machine: str = "made up") -> None:
        self.machine = machine
        self.meters: list[MadeUpMeter] = []

    def __call__(
        self, model: nn.Module, graph: ChannelGraph, inputs: tuple[torch.Tensor, ...], reference: float | None
    ) -> MadeUpMeter:
        self.meters.append(self.kind(graph, reference, self.machine))
        return self.meters[-1]

    @property
    def measured(self) -> int:
        return sum(meter.measured for meter in self.meters)


def prepare(
    model: nn.Module, task: Classification, budget: Budget, path: Path | None, make: Workshop, **space: Any
) -> Session:
    chosen = Space.parse({"criteria": ["l1"], "min_width": 1, **space}, source="test")
    return Session.prepare(
        model, task, budget, chosen, Recipe(64), seed=0, device=torch.device("cpu"), view=Silent(), latency=path,
        make_meter=make,
    )  # fmt: skip


def test_a_latency_budget_is_projected_onto_and_then_measured(
    tiny_resnet: nn.Module, digits_task: Classification, tmp_path: Path
) -> None:
    workshop = Workshop()
    session = prepare(tiny_resnet, digits_task, Budget(latency=0.6, params=0.9), tmp_path / "latency.json", workshop)
    limit = 0.6 * workshop.meters[-1].reference
    assert session.limits == pytest.approx({"latency": limit, "params": 0.9 * session.graph.dense_costs["params"]})
    assert session.prices.dense["latency"] == workshop.meters[-1].reference
    projector = session.projector
    for candidate in (projector.uniform("l1"), projector.knapsack("l1"), projector.greedy("l1")):
        plan = session.evaluator.plan(candidate)
        costs = session.evaluator.costs(plan)
        assert costs["latency"].predicted is not None
        assert costs["latency"].predicted <= limit
        assert costs["params"].value <= session.limits["params"]
        assert costs["latency"].value == pytest.approx(costs["latency"].predicted, rel=0.25)
    evaluation = session.evaluator.evaluate(candidate, seed=0)
    assert evaluation.costs["latency"] == costs["latency"]
    assert type(evaluation).from_json(evaluation.to_json()) == evaluation
    dense = session.evaluator.costs(session.graph.plan({}))
    assert violations(dense, session.limits)["latency"] > 0, "measured over budget"


def test_what_was_measured_is_kept_for_the_same_model_and_machine(
    tiny_resnet: nn.Module, digits_task: Classification, tmp_path: Path
) -> None:
    path, first, again, elsewhere = tmp_path / "latency.json", Workshop(), Workshop(), Workshop("another")
    one = prepare(tiny_resnet, digits_task, Budget(latency=0.6), path, first)
    two = prepare(tiny_resnet, digits_task, Budget(latency=0.6), path, again)
    assert first.measured > 12
    assert again.measured == 0
    assert one.identity(strategy="tpe") == two.identity(strategy="tpe")
    other = prepare(tiny_resnet, digits_task, Budget(latency=0.6), path, elsewhere)
    assert elsewhere.measured > 12
    assert other.identity(strategy="tpe")["latency"] != one.identity(strategy="tpe")["latency"]


def test_an_interrupted_measurement_goes_on(
    tiny_resnet: nn.Module, digits_task: Classification, tmp_path: Path
) -> None:
    class Interrupted(MadeUpMeter):
        def cost(self, widths: Mapping[str, int]) -> Cost:
            if self.measured == 20:
                raise KeyboardInterrupt
            return super().cost(widths)

    graph = ChannelGraph.trace(tiny_resnet, digits_task.example_inputs)
    space, path = Space.parse({"criteria": ["l1"]}, source="test"), tmp_path / "latency.json"

    def run(make: Any) -> None:
        price(
            tiny_resnet, graph, digits_task, Budget(latency=0.6), space, make_meter=make, path=path, seed=0,
            view=Silent(),
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        run(lambda model, graph, inputs, reference: Interrupted(graph, reference))
    workshop = Workshop()
    run(workshop)
    assert 0 < workshop.measured <= 28
    assert [file.name for file in tmp_path.iterdir()] == ["latency.json"]


def test_rounding_is_chosen_and_said(tiny_resnet: nn.Module, digits_task: Classification, tmp_path: Path) -> None:
    view = Recorder()
    graph = ChannelGraph.trace(tiny_resnet, digits_task.example_inputs)
    space = Space.parse({"criteria": ["l1"], "round_to": "auto", "min_width": 1}, source="test")
    prices = price(
        tiny_resnet, graph, digits_task, Budget(macs=0.5), space, make_meter=Workshop(), path=None, seed=0, view=view
    )
    assert prices.allowed is not None
    wide = [widths for widths in prices.allowed.values() if widths[-1] >= 16]
    assert wide
    assert all(width % 4 == 0 for widths in wide for width in widths)
    assert any("multiples of" in sentence and "per MAC on this machine" in sentence for sentence in view.said)
    scores = {"l1": {name: torch.ones(width) for name, width in graph.widths.items()}}
    found = Projector(prices.graph, space, prices.projected, scores, prices.predicted, prices.allowed)
    assert all(width in prices.allowed[name] for name, width in found.uniform("l1").widths.items())


def test_a_latency_out_of_reach_is_refused_by_a_measurement(
    tiny_resnet: nn.Module, digits_task: Classification
) -> None:
    workshop = Workshop()
    with pytest.raises(BudgetError, match=r"latency <= .* cannot be reached: .* were measured, and the best takes"):
        prepare(tiny_resnet, digits_task, Budget(latency=0.01), None, workshop)


class Surprising(MadeUpMeter):
    """Candidates take half as long as the quick measurements for the fit let one expect."""

    def __init__(self, graph: ChannelGraph, reference: float | None, machine: str = "made up") -> None:
        super().__init__(graph, reference, machine)
        self.slower = 0.5

    def quick(self) -> MadeUpMeter:
        return MadeUpMeter(self.graph, self.reference)


def test_a_bound_that_only_the_prediction_misses_is_met(
    tiny_resnet: nn.Module, digits_task: Classification, tmp_path: Path
) -> None:
    class SurprisingWorkshop(Workshop):
        kind = Surprising

    fair = prepare(tiny_resnet, digits_task, Budget(latency=0.9), None, Workshop())
    predictor = fair.prices.predictor
    assert predictor is not None
    least = fair.projector.reachable()["latency"][0] / predictor.dense
    path, bound = tmp_path / "latency.json", Budget(latency=0.9 * least)
    with pytest.raises(BudgetError, match="measured"):
        prepare(tiny_resnet, digits_task, bound, None, Workshop())
    session = prepare(tiny_resnet, digits_task, bound, path, SurprisingWorkshop())
    plan = session.evaluator.plan(session.projector.uniform("l1"))
    assert session.evaluator.costs(plan)["latency"].value <= session.limits["latency"]
    assert session.prices.projected["latency"] > session.limits["latency"], "the prediction is too high there"
    again = SurprisingWorkshop()
    resumed = prepare(tiny_resnet, digits_task, bound, path, again)
    assert again.measured == 0
    assert resumed.prices.projected == session.prices.projected
    assert resumed.identity(strategy="tpe") == session.identity(strategy="tpe")


def test_a_size_budget_holds_for_the_file(tiny_resnet: nn.Module, digits_task: Classification) -> None:
    session = prepare(tiny_resnet, digits_task, Budget(size=0.6), None, Workshop())
    plan = session.evaluator.plan(session.projector.uniform("l1"))
    assert np.isclose(plan.costs()["size"].ratio, 0.6, atol=0.1)
    assert plan.costs()["size"].value <= session.limits["size"]


def test_another_machine_is_told_before_it_measures() -> None:
    settings = LatencySettings()
    here = runtimes["onnxruntime"].fingerprint(settings).to_json()
    check_machine(settings, {**here, "dense": 0.002})
    with pytest.raises(StudyError, match=r"batch_size: 1, not 8.*same kind"):
        check_machine(settings, {**here, "batch_size": 8})
