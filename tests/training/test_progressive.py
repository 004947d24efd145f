from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune, slice_model
from automl_prune.costs import count_macs
from automl_prune.criteria import CriterionContext, keep_best, score_groups
from automl_prune.errors import BudgetError, CheckpointError, ConfigError
from automl_prune.evaluation import FineTuning, finetune, recalibrate, score
from automl_prune.files import tensors_digest
from automl_prune.models import mobilenet_v2, resnet8
from automl_prune.seeding import generator, seeded
from automl_prune.tasks import Task
from automl_prune.training.progressive import Cut, Progress, Schedule, between, narrowed, progressive

CPU = torch.device("cpu")
SHORT = Schedule(3, FineTuning(4, 0.05), "l1", 64)


class Flattened(nn.Module):
    """A channel takes several positions of the linear layer, and is read at once by two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 5, 3, padding=1), nn.Linear(11 * 64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.a(x).relu()
        out: torch.Tensor = self.c(torch.cat([first, self.b(first)], 1).flatten(1))
        return out


MODELS = {
    "resnet": lambda: resnet8(num_classes=10, in_channels=1, width=4),
    "mobilenet": lambda: mobilenet_v2(num_classes=10, in_channels=1, width=0.25),
    "flattened": Flattened,
}


def random_plans(graph: ChannelGraph, seed: int) -> tuple[Plan, Plan]:
    """A plan and a narrower one."""
    random = generator("plans", seed)
    wide, narrow = {}, {}
    for name, width in graph.widths.items():
        order = torch.randperm(width, generator=random).tolist()
        first = int(torch.randint(1, width + 1, (1,), generator=random))
        second = int(torch.randint(1, first + 1, (1,), generator=random))
        wide[name], narrow[name] = order[:first], order[:second]
    return graph.plan(wide), graph.plan(narrow)


@pytest.fixture(scope="module", params=list(MODELS))
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, ChannelGraph]:
    with seeded("traced"):
        model = MODELS[request.param]().eval()
    return model, ChannelGraph.trace(model, (torch.zeros(2, 1, 8, 8),))


@settings(max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_two_cuts_in_turn_equal_the_last_one_alone(traced: tuple[nn.Module, ChannelGraph], seed: int) -> None:
    model, graph = traced
    before, after = random_plans(graph, seed)
    direct = prune(model, after).state_dict()
    in_turn = slice_model(prune(model, before), between(before, after), after.sizes).state_dict()
    assert direct.keys() == in_turn.keys()
    assert all(torch.equal(direct[name], in_turn[name]) for name in direct)
    assert not between(after, after)


def test_narrowed_groups_are_those_a_new_trace_finds(traced: tuple[nn.Module, ChannelGraph]) -> None:
    model, graph = traced
    plan = graph.plan({g.name: list(range(g.width))[1::2] or [0] for g in graph.groups})
    again = ChannelGraph.trace(prune(model, plan), (torch.zeros(2, 1, 8, 8),))
    for group in graph.groups:
        mine, found = narrowed(group, plan), again[group.name]
        assert mine.width == found.width == len(plan.kept[group.name])
        indices = {(member.parameter, member.axis): member.index for member in found.members}
        assert indices.keys() == {(member.parameter, member.axis) for member in mine.members}
        for member in mine.members:
            np.testing.assert_array_equal(member.index, indices[member.parameter, member.axis])


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


def run(dense: tuple[nn.Module, ChannelGraph], task: Task, **options: Any) -> Progress:
    graph = dense[1]
    allowed = {name: tuple(range(1, width + 1)) for name, width in graph.widths.items()}
    budget = {"macs": 0.4 * graph.dense_costs["macs"]}
    settings = {"budget": budget, "allowed": allowed, "schedule": SHORT, **options}
    return progressive(dense[0], graph, task, device=CPU, **settings)


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
        run(dense, digits_task, checkpoint=path, budget={"macs": 0.3 * dense[1].dense_costs["macs"]})
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
    found = run(dense, digits_task, allowed=allowed, budget=budget, schedule=Schedule(1, FineTuning(2, 0.05), "l1", 64))
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


def test_what_cannot_be_reached_is_told(dense: tuple[nn.Module, ChannelGraph], digits_task: Task) -> None:
    graph = dense[1]
    allowed = {name: (width - 1, width) for name, width in graph.widths.items()}
    with pytest.raises(BudgetError, match="cannot be reached: the narrowest allowed widths cost"):
        run(dense, digits_task, allowed=allowed)
    with pytest.raises(ConfigError, match="at least 1 step, got 0"):
        Schedule(0, FineTuning(1))
    assert run(dense, digits_task, budget={"macs": graph.dense_costs["macs"]}).cuts == (), "met already"
