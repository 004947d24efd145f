from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.costs import Cost, CostModel, count_macs
from automl_prune.criteria import CriterionContext, keep_best, score_groups
from automl_prune.errors import BudgetError, CheckpointError, ConfigError
from automl_prune.evaluation import FineTuning, finetune, recalibrate, score
from automl_prune.files import tensors_digest
from automl_prune.models import resnet8
from automl_prune.seeding import seeded
from automl_prune.tasks import Task
from automl_prune.training.goal import Goal, Schedule
from automl_prune.training.progressive import Cut, Progress, progressive

CPU = torch.device("cpu")
SHORT = Schedule(3, FineTuning(4, 0.05), "l1", 64)


def test_limits_approach_the_budget_in_equal_ratios() -> None:
    schedule = Schedule(4, FineTuning(1))
    dense, budget = {"macs": 1600.0, "params": 10.0}, {"macs": 100.0, "params": 20.0}
    found = [schedule.limits(dense, budget, step) for step in range(1, 6)]
    assert [limits["macs"] for limits in found] == pytest.approx([800, 400, 200, 100, 100])
    assert {limits["params"] for limits in found} == {20.0}, "met already"


@pytest.fixture(scope="module")
def dense(digits_task: Task) -> tuple[nn.Module, ChannelGraph]:
    with seeded("progressive"):
        fresh = resnet8(num_classes=10, in_channels=1, width=4)
    model = finetune(fresh, digits_task, FineTuning(60, 0.1, distillation=0), seed=0, device=CPU)
    return model, ChannelGraph.trace(model, digits_task.example_inputs)


def run(traced: tuple[nn.Module, ChannelGraph], task: Task, **options: Any) -> Progress:
    model, graph = traced
    names = {field.name for field in fields(Goal)}
    goal: dict[str, Any] = {
        "limits": {"macs": 0.4 * graph.dense_costs["macs"]},
        "allowed": {name: tuple(range(1, width + 1)) for name, width in graph.widths.items()},
        "dense": graph.dense_costs,
        "costs": graph.cost_models,
        **{name: value for name, value in options.items() if name in names},
    }
    others = {name: value for name, value in options.items() if name not in names}
    return progressive(model, graph, task, Goal(**goal), device=CPU, **{"schedule": SHORT, **others})


@pytest.fixture(scope="module")
def finished(dense: tuple[nn.Module, ChannelGraph], digits_task: Task) -> Progress:
    return run(dense, digits_task)


def test_the_budget_is_met_by_cuts_that_each_reach_their_step(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task, finished: Progress
) -> None:
    model, graph = dense
    digest = tensors_digest(model.state_dict())
    total = graph.dense_costs["macs"]
    assert finished.plan.costs()["macs"].value <= 0.4 * total
    assert count_macs(finished.model, digits_task.example_inputs) == finished.plan.costs()["macs"].value
    assert tensors_digest(model.state_dict()) == digest
    assert finished.cuts[-1].trained == score(finished.model, digits_task, "val", CPU)
    assert len(finished.cuts) <= SHORT.steps
    limits = [total * 0.4 ** (step / 3) for step in (1, 2, 3)]
    costs = [cut.costs["macs"] for cut in finished.cuts]
    assert costs == sorted(costs, reverse=True)
    assert all(any(cost <= limit for cost in costs) for limit in limits)
    widths = dict(graph.widths)
    for cut in finished.cuts:
        before = dict(widths)
        widths[cut.group] = cut.width
        assert cut.costs["macs"] == graph.macs.at(widths)
        wider = {**widths, cut.group: cut.width + 1}
        step = next(limit for limit in limits if graph.macs.at(before) > limit)
        assert graph.macs.at(wider) > step, "no more is cut than the step asks for"
    assert widths == finished.plan.widths


def test_the_first_cut_is_the_best_of_all_groups(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task, finished: Progress
) -> None:
    model, graph = dense
    limit = graph.dense_costs["macs"] * 0.4 ** (1 / 3)
    ranked = score_groups(graph.groups, CriterionContext.of(model), "l1")
    found = {}
    for name, width in graph.widths.items():
        fitting = [w for w in range(1, width) if graph.macs.at({**graph.widths, name: w}) <= limit]
        if fitting:
            small = prune(model, graph.plan({name: keep_best(ranked[name], fitting[-1])}))
            recalibrate(small, digits_task, samples=64, device=CPU)
            found[name] = score(small, digits_task, "val", CPU).value
    assert len(found) > 1
    first = finished.cuts[0]
    assert first.cut.value == found[first.group] == max(found.values())


def test_a_killed_run_goes_on_to_the_same_bits_and_another_one_is_refused(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task, finished: Progress, tmp_path: Path
) -> None:
    path, seen = tmp_path / "progressive.safetensors", list[Cut]()

    def kill(cut: Cut) -> None:
        seen.append(cut)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dense, digits_task, checkpoint=path, on_cut=kill)
    assert len(seen) == 1 < len(finished.cuts)
    other = Schedule(4, SHORT.finetuning, "l1", 64)
    with pytest.raises(CheckpointError, match="with a different schedule"):
        run(dense, digits_task, checkpoint=path, schedule=other)
    with pytest.raises(CheckpointError, match="with a different budget"):
        run(dense, digits_task, checkpoint=path, limits={"macs": 0.3 * dense[1].dense_costs["macs"]})
    resumed = run(dense, digits_task, checkpoint=path, on_cut=seen.append)
    assert tuple(seen) == finished.cuts == resumed.cuts, "nothing twice"
    assert resumed.plan.kept == finished.plan.kept
    assert tensors_digest(resumed.model.state_dict()) == tensors_digest(finished.model.state_dict())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        run(dense, digits_task, checkpoint=path)


def test_groups_that_cannot_reach_a_step_alone_are_cut_in_turn(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task
) -> None:
    graph = dense[1]
    allowed = {name: (max(1, width * 3 // 4), width) for name, width in graph.widths.items()}
    budget = {"macs": graph.macs.at({name: widths[0] for name, widths in allowed.items()}) * 1.02}
    found = run(dense, digits_task, allowed=allowed, limits=budget, schedule=Schedule(1, FineTuning(2, 0.05), "l1", 64))
    assert len(found.cuts) > 1, "more cuts than steps"
    assert found.plan.costs()["macs"].value <= budget["macs"]
    assert all(found.plan.widths[name] in widths for name, widths in allowed.items())


@pytest.mark.parametrize("criterion", ["obs", "taylor"])
def test_criteria_of_statistics_see_the_model_as_it_is(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task, criterion: str
) -> None:
    found = run(dense, digits_task, schedule=Schedule(2, FineTuning(4, 0.05), criterion, 64))
    assert len(found.cuts) == 2, "the second one on a model that is cut and trained already"
    assert found.plan.costs()["macs"].value <= 0.4 * dense[1].dense_costs["macs"]


@dataclass(frozen=True)
class Predicted:
    """Seconds in proportion to the MACs, as a predictor has them."""

    macs: CostModel
    monotone: bool = False

    @property
    def groups(self) -> tuple[str, ...]:
        return self.macs.groups

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        return 1e-9 * self.macs.evaluate(widths)

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
        return np.asarray(1e-9 * self.macs.evaluate_all(widths))

    def at(self, widths: Mapping[str, int]) -> float:
        return 1e-9 * self.macs.at(widths)


def test_latency_is_predicted_for_proposals_and_measured_for_every_step(
    dense: tuple[nn.Module, ChannelGraph], digits_task: Task
) -> None:
    graph, predicted, asked = dense[1], Predicted(dense[1].macs), list[dict[str, int]]()
    total = predicted.at(graph.widths)

    def measured(widths: Mapping[str, int]) -> dict[str, Cost]:
        asked.append(dict(widths))
        return {"latency": Cost("latency", 1.25 * predicted.at(widths), total)}

    goal: dict[str, Any] = {
        "limits": {"latency": 0.6 * total, "params": 0.95 * graph.dense_costs["params"]},
        "costs": {**graph.cost_models, "latency": predicted},
        "dense": {**graph.dense_costs, "latency": total},
        "measured": measured,
    }
    found = run(dense, digits_task, **goal)
    assert asked[-1] == found.plan.widths
    assert len(asked) == len(found.cuts)
    assert found.cuts[-1].costs["latency"] == 1.25 * predicted.at(found.plan.widths) <= 0.6 * total
    assert found.plan.costs()["params"].ratio <= 0.95
    corrected = found.cuts[1]
    assert corrected.costs["latency"] <= total * 0.6 ** (1 / 3), "by what the first cut had measured"
    assert corrected.costs["latency"] > total * 0.6, "and no further than the schedule asks"
    few = {**goal, "allowed": {name: (width * 3 // 4, width) for name, width in graph.widths.items()}}
    with pytest.raises(BudgetError, match=r"as narrow as it may be, and the model measures .* latency where at most"):
        run(dense, digits_task, **{**few, "limits": {"latency": 0.3 * total}})


def test_what_cannot_be_reached_is_told(dense: tuple[nn.Module, ChannelGraph], digits_task: Task) -> None:
    graph = dense[1]
    allowed = {name: (width - 1, width) for name, width in graph.widths.items()}
    with pytest.raises(BudgetError, match="cannot be reached: the narrowest allowed widths cost"):
        run(dense, digits_task, allowed=allowed)
    with pytest.raises(ConfigError, match="at least 1 step, got 0"):
        Schedule(0, FineTuning(1))
    assert run(dense, digits_task, limits={"macs": graph.dense_costs["macs"]}).cuts == (), "met already"
