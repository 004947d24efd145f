"""Recalibration, fine-tuning and whole evaluations, on real digits and on a task that classifies nothing."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.calibration import CalibrationSettings, collect
from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.channels import ChannelGraph
from automl_prune.checkpoints import Checkpoint
from automl_prune.costs import Cost
from automl_prune.criteria import CriterionContext, score_groups
from automl_prune.errors import ConfigError, EvaluationError, PlanError
from automl_prune.evaluation import Evaluator, FineTuning, Recipe, Teacher, finetune, recalibrate
from automl_prune.evaluation.evaluator import always
from automl_prune.files import tensors_digest
from automl_prune.seeding import derive_seed
from automl_prune.tasks import Score, Task

CPU = torch.device("cpu")


def _evaluator(model: nn.Module, task: Task, recipe: Recipe) -> Evaluator:
    model.eval()
    graph = ChannelGraph.trace(model, task.example_inputs)
    scores = {"l1": score_groups(graph.groups, CriterionContext.of(model), "l1")}
    calibration = collect(model, task, CalibrationSettings(128), device=CPU) if recipe.reconstruct else None
    return Evaluator(model, graph, task, scores, recipe, CPU, calibration)


def _half(evaluator: Evaluator) -> Candidate:
    return Candidate({name: GroupChoice(-(-width // 2), "l1") for name, width in evaluator.graph.widths.items()})


def test_recalibration_is_the_mean_over_batches(digits_task: Task) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Dropout(0.9), nn.BatchNorm2d(3, momentum=0.3)).eval()
    before = copy.deepcopy(model.state_dict())
    used = recalibrate(model, digits_task, samples=128, device=CPU)
    batches = list(digits_task.batches("train", shuffle=derive_seed("recalibration")))[:2]
    maps = [model[0](images).detach() for images, _ in batches]
    norm = model[2]
    assert isinstance(norm, nn.BatchNorm2d)
    assert used == 128
    assert norm.running_mean is not None
    assert norm.running_var is not None
    torch.testing.assert_close(norm.running_mean, torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0))
    assert norm.momentum == 0.3
    assert not any(module.training for module in model.modules())
    assert torch.equal(before["0.weight"], model.state_dict()["0.weight"])


def test_recalibration_of_a_model_without_norms_says_so(digits_task: Task) -> None:
    assert recalibrate(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), digits_task, samples=64, device=CPU) == 0


def test_equal_seeds_give_equal_weights(digits_task: Task, tiny_resnet: nn.Module) -> None:
    recipe = FineTuning(steps=5, distillation=0)
    runs = [
        finetune(copy.deepcopy(tiny_resnet), digits_task, recipe, seed=seed, device=CPU).state_dict()
        for seed in (0, 0, 1)
    ]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert not all(torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


def test_the_student_approaches_its_teacher(digits_task: Task, tiny_resnet: nn.Module) -> None:
    teacher = finetune(
        copy.deepcopy(tiny_resnet),
        digits_task,
        FineTuning(steps=40, learning_rate=0.1, distillation=0),
        seed=0,
        device=CPU,
    )
    student = copy.deepcopy(tiny_resnet).eval()
    batch = next(iter(digits_task.batches("val")))

    def distance(model: nn.Module) -> float:
        with torch.no_grad():
            outputs, taught = (m(*digits_task.inputs(batch)) for m in (model, teacher))
            return digits_task.distillation_loss(outputs, taught).item()

    before = distance(student)
    recipe = FineTuning(steps=60, learning_rate=0.05, distillation=1.0)
    finetune(student, digits_task, recipe, seed=0, device=CPU, teacher=Teacher(teacher))
    assert distance(student) < before / 2


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_divergence_is_an_error_with_the_step(digits_task: Task, tiny_resnet: nn.Module, rate: float) -> None:
    recipe = FineTuning(steps=300, learning_rate=rate, warmup=0.9, distillation=0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    with pytest.raises(EvaluationError, match=r"diverged.*at step \d+ of 300.*lower learning rate"):
        finetune(model, digits_task, recipe, seed=0, device=CPU)


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    recipe = FineTuning(steps=100, learning_rate=0.02)
    rates = [recipe.rate(step) for step in range(100)]
    assert max(rates) == pytest.approx(0.02)
    assert rates.index(max(rates)) == 10
    assert rates[99] < 1e-4
    assert all(a < b for a, b in pairwise(rates[:11]))


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"learning_rate": math.nan}, {"momentum": 1.0}, {"distillation": 2.0}, {"warmup": 1.0}]
)
def test_recipes_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        FineTuning(**{"steps": 1, **wrong})


def test_an_evaluation_is_exact_repeatable_and_leaves_the_dense_model(
    digits_task: Task, tiny_resnet: nn.Module
) -> None:
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128, FineTuning(steps=3)))
    before = copy.deepcopy(tiny_resnet.state_dict())
    first, second = (evaluator.evaluate(_half(evaluator), seed=3) for _ in range(2))
    assert (first.score, first.plan_digest, first.costs) == (second.score, second.plan_digest, second.costs)
    assert (first.rung, first.steps) == (1, 3)
    assert first.costs["macs"].ratio < 0.5
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_resnet.state_dict().items())


def test_a_candidate_that_does_not_climb_keeps_its_rung_zero(digits_task: Task, tiny_resnet: nn.Module) -> None:
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128, FineTuning(steps=3)))
    untrained = _evaluator(tiny_resnet, digits_task, Recipe(128)).evaluate(_half(evaluator), seed=3)
    asked: list[tuple[Score, float]] = []

    def refuse(score: Score, costs: Mapping[str, Cost]) -> bool:
        asked.append((score, costs["macs"].value))
        return False

    stayed, climbed = (evaluator.evaluate(_half(evaluator), 3, climb) for climb in (refuse, always))
    assert asked == [(untrained.score, untrained.costs["macs"].value)]
    assert (stayed.rung, stayed.steps, stayed.score) == (0, 0, untrained.score)
    assert climbed.rungs[0].score == untrained.score
    assert stayed.plan_digest == climbed.plan_digest == evaluator.digest(_half(evaluator))
    assert climbed.seconds == sum(rung.seconds for rung in climbed.rungs)


def test_rung_one_trains_the_model_that_rung_zero_scored(digits_task: Task, tiny_resnet: nn.Module) -> None:
    recipe = FineTuning(steps=3)
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128, recipe))
    finalist = evaluator.finalist(_half(evaluator), recipe, seed=3)
    assert evaluator.evaluate(_half(evaluator), seed=3).score == finalist.val


def test_a_finalist_is_trained_on_several_devices_by_a_checkpoint_of_any(
    digits_task: Task, tiny_resnet: nn.Module, tmp_path: Path
) -> None:
    pytest.importorskip("lightning_fabric")
    recipe = FineTuning(steps=2, devices=("cpu", "cpu"))
    assert recipe.identity == FineTuning(steps=2).identity
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128))
    dense = tensors_digest(tiny_resnet.state_dict())
    untrained = evaluator.compress(evaluator.plan(_half(evaluator)))
    finalist = evaluator.finalist(_half(evaluator), recipe, 3, Checkpoint(tmp_path / "c.safetensors", {"plan": "p"}))
    assert finalist.steps == 2
    assert finalist.val.samples == 128
    assert finalist.model.state_dict().keys() == untrained.state_dict().keys()
    assert tensors_digest(finalist.model.state_dict()) != tensors_digest(untrained.state_dict())
    assert tensors_digest(tiny_resnet.state_dict()) == dense


def test_rung_zero_trains_nothing(digits_task: Task, tiny_resnet: nn.Module) -> None:
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128))
    record = evaluator.evaluate(_half(evaluator), seed=0)
    assert (record.rung, record.steps, record.score.samples) == (0, 0, 128)


def test_another_kind_of_task(regression_task: Task) -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)
    )
    evaluator = _evaluator(model, regression_task, Recipe(64, FineTuning(steps=30, learning_rate=0.05)))
    candidate = _half(evaluator)
    untrained = _evaluator(model, regression_task, Recipe(64)).evaluate(candidate, 0)
    finalist = evaluator.finalist(candidate, FineTuning(steps=60, learning_rate=0.05, distillation=0), 0)
    assert not regression_task.metric.higher_is_better
    assert finalist.val.value < untrained.score.value
    assert finalist.test.samples > 0


def test_a_model_that_is_not_what_its_plan_says_is_refused(digits_task: Task, tiny_resnet: nn.Module) -> None:
    @dataclass(frozen=True)
    class Broken:
        inner: Any

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def plan(self, kept: Any) -> Any:
            plan = self.inner.plan(kept)
            object.__setattr__(plan, "slices", {})
            return plan

    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(64))
    evaluator.graph = Broken(evaluator.graph)  # type: ignore[assignment]  # a stand-in that cuts nothing
    with pytest.raises(EvaluationError, match="its plan says"):
        evaluator.evaluate(_half(evaluator), seed=0)


def test_a_candidate_of_another_study_is_refused(digits_task: Task, tiny_resnet: nn.Module) -> None:
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(64))
    name = next(iter(evaluator.graph.widths))
    with pytest.raises(ConfigError, match=r"'l3'; did you mean 'l1'"):
        evaluator.plan(Candidate({name: GroupChoice(1, "l3")}))
    with pytest.raises(PlanError, match="nowhere"):
        evaluator.plan(Candidate({"nowhere": GroupChoice(1, "l1")}))
    with pytest.raises(PlanError, match="cannot keep 99"):
        evaluator.plan(Candidate({name: GroupChoice(99, "l1")}))


def test_a_score_that_is_no_number_is_an_error(regression_task: Task) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    evaluator = _evaluator(model, regression_task, Recipe(64))
    with torch.no_grad():
        model.get_parameter("3.bias").fill_(math.nan)
    with pytest.raises(EvaluationError, match="rmse on val is nan"):
        evaluator.evaluate(_half(evaluator), seed=0)


def test_what_a_recipe_switches_on_is_done_in_order(digits_task: Task, tiny_resnet: nn.Module) -> None:
    """Weights are those of reconstruction alone, running statistics those of recalibration after it."""
    finetune(tiny_resnet, digits_task, FineTuning(steps=20, learning_rate=0.1, distillation=0), seed=0, device=CPU)
    kept = _half(_evaluator(tiny_resnet, digits_task, Recipe(128)))
    models = {}
    for reconstruct, recalibrated in ((False, False), (False, True), (True, False), (True, True)):
        evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128, None, reconstruct, recalibrate=recalibrated))
        models[reconstruct, recalibrated] = evaluator.compress(evaluator.plan(kept)).state_dict()
    plain, both = models[False, False], models[True, True]
    for name, tensor in both.items():
        statistic = "running" in name or "tracked" in name
        assert torch.equal(tensor, models[True, False][name]) != statistic
        read = name.endswith("weight") and tensor.dim() > 1 and name != "conv1.weight"
        assert torch.equal(models[True, False][name], plain[name]) != (read or name == "fc.bias")
        assert torch.equal(models[False, True][name], plain[name]) != statistic
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(128, None, reconstruct=True, sequential=True))
    assert not torch.equal(evaluator.compress(evaluator.plan(kept)).state_dict()["fc.weight"], both["fc.weight"])


def test_reconstruction_without_what_it_needs_is_refused(digits_task: Task, tiny_resnet: nn.Module) -> None:
    evaluator = _evaluator(tiny_resnet, digits_task, Recipe(64))
    with pytest.raises(ConfigError, match="needs a calibration"):
        Evaluator(tiny_resnet, evaluator.graph, digits_task, evaluator.scores, Recipe(64, reconstruct=True), CPU)
    with pytest.raises(ConfigError, match="set reconstruct to true"):
        Recipe(sequential=True)


def _allocate() -> torch.Tensor:
    return torch.empty(2**60, dtype=torch.uint8)  # torch's own error, on any machine


def _exhaust() -> torch.Tensor:
    raise MemoryError


@pytest.mark.parametrize(("exhaust", "said"), [(_allocate, "can't allocate memory"), (_exhaust, "MemoryError")])
@pytest.mark.parametrize("stage", ["evaluate", "finalist"])
def test_running_out_of_memory_fails_the_candidate_and_frees_what_it_held(
    stage: str, exhaust: Callable[[], torch.Tensor], said: str, tiny_resnet: nn.Module, digits_task: Task
) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    class Hungry(type(digits_task)):  # type: ignore[misc]  # the fixture's class
        def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
            activations = torch.ones(3)
            held.append(weakref.ref(activations))
            return exhaust()

    task = Hungry(digits_task.name, digits_task.images)  # type: ignore[attr-defined]
    finetuning = FineTuning(steps=2, distillation=0)
    evaluator = _evaluator(tiny_resnet, task, Recipe(64, finetuning))
    half = _half(evaluator)
    work: Callable[[], object] = (
        (lambda: evaluator.evaluate(half, 0))
        if stage == "evaluate"
        else (lambda: evaluator.finalist(half, finetuning, 0))
    )
    with pytest.raises(EvaluationError, match=f"out of memory on cpu .*{said}.*lower data.batch_size") as caught:
        work()
    assert caught.value.__suppress_context__
    assert held
    assert held[0]() is None


def test_other_errors_of_an_evaluation_stay_what_they_are(tiny_resnet: nn.Module, digits_task: Task) -> None:
    class Broken(type(digits_task)):  # type: ignore[misc]  # the fixture's class
        def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    task = Broken(digits_task.name, digits_task.images)  # type: ignore[attr-defined]
    evaluator = _evaluator(tiny_resnet, task, Recipe(64, FineTuning(steps=2, distillation=0)))
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        evaluator.evaluate(_half(evaluator), 0)
