"""From a candidate to its scores: prune, reconstruct, recalibrate, score; fine-tune and score again if it earns it."""

from __future__ import annotations

import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from automl_prune.calibration import Calibration
from automl_prune.candidate import Candidate
from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.checkpoints import Checkpoint
from automl_prune.costs import Cost, contradiction, count_costs
from automl_prune.criteria import keep_best
from automl_prune.errors import ConfigError, EvaluationError, PlanError
from automl_prune.evaluation.batchnorm import recalibrate
from automl_prune.evaluation.finetune import FineTuning, finetune
from automl_prune.evaluation.memory import within_memory
from automl_prune.evaluation.parallel import check_devices, finetune_on
from automl_prune.evaluation.reconstruct import reconstruct
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.evaluation.score import score
from automl_prune.evaluation.sequential import SequentialReconstruction
from automl_prune.evaluation.teacher import Teacher
from automl_prune.registry import nearest
from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Score, Split, Task

Climb: TypeAlias = Callable[[Score, Mapping[str, Cost]], bool]
"""(score at rung 0, costs) -> whether the candidate goes on to rung 1."""


def always(score: Score, costs: Mapping[str, Cost]) -> bool:
    """Every candidate climbs."""
    return True


@dataclass(frozen=True, slots=True)
class Recipe:
    """How candidates are evaluated.

    Attributes:
        calibration_samples: Training samples for calibration and BatchNorm recalibration.
        finetuning: Rung 1; with None there is only rung 0, without any training.
        reconstruct: Whether layers that lost inputs get the least-squares weights (``reconstruct``).
        sequential: Whether they are then fitted once more layer by layer (``SequentialReconstruction``): better, and
            slower by a forward pass of 512 samples; only with ``reconstruct``.
        recalibrate: Whether running statistics of norms are measured anew.
    """

    calibration_samples: int = 1024
    finetuning: FineTuning | None = None
    reconstruct: bool = False
    sequential: bool = False
    recalibrate: bool = True

    def __post_init__(self) -> None:
        if self.calibration_samples < 1:
            raise ConfigError(f"calibration needs at least 1 sample, got {self.calibration_samples}")
        if self.sequential and not self.reconstruct:
            raise ConfigError("sequential reconstruction is a kind of reconstruction; set reconstruct to true as well")


@dataclass(frozen=True, slots=True)
class Trained:
    """A finalist's model after its long fine-tuning, in evaluation mode, with its scores and what they took."""

    model: nn.Module
    val: Score
    test: Score
    steps: int
    seconds: float


class Evaluator:
    """Evaluates candidates of one dense model, which is never changed.

    Args:
        model: The dense model, on ``device``, in evaluation mode.
        graph: Its proved channel graph.
        task: Its data.
        scores: Channel scores by criterion and group, computed once.
        recipe: How to evaluate.
        device: Where everything runs.
        calibration: Of the dense model; needed when the recipe reconstructs.
        measured: Costs that only measuring tells, by metric, of the model of some widths.

    Raises:
        ConfigError: The recipe reconstructs, and there is no calibration.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ChannelGraph,
        task: Task,
        scores: Mapping[str, Mapping[str, torch.Tensor]],
        recipe: Recipe,
        device: torch.device,
        calibration: Calibration | None = None,
        measured: Callable[[Mapping[str, int]], Mapping[str, Cost]] | None = None,
    ) -> None:
        if recipe.reconstruct and calibration is None:
            raise ConfigError("reconstruction needs a calibration of the dense model; collect one, or set it to false")
        self.model, self.graph, self.task, self.recipe, self.device = model, graph, task, recipe, device
        self.scores = scores
        self.calibration = calibration
        self._measured = measured
        self._teacher = Teacher(model)
        self._sequential: SequentialReconstruction | None = None
        self._example = tuple(tensor[:1].to(device) for tensor in task.example_inputs)

    def plan(self, candidate: Candidate) -> Plan:
        """The channels a candidate keeps: in every group the best by its criterion.

        Raises:
            ConfigError: A criterion that was not scored.
            PlanError: An unknown group, or more channels than it has.
        """
        unknown = {choice.criterion for choice in candidate.choices.values()} - self.scores.keys()
        if unknown:
            name = min(unknown)
            raise ConfigError(f"the candidate names criterion {name!r}; {nearest(name, self.scores)}")
        unscored = candidate.choices.keys() - self.graph.widths.keys()
        if unscored:
            name = min(unscored)
            raise PlanError(f"the candidate names the channel group {name!r}; {nearest(name, self.graph.widths)}")
        return self.graph.plan(
            {
                name: keep_best(self.scores[choice.criterion][name], choice.keep)
                for name, choice in candidate.choices.items()
            }
        )

    def digest(self, candidate: Candidate) -> str:
        """Identity of what a candidate keeps: the ``plan_digest`` of its evaluation."""
        return self.plan(candidate).digest

    def costs(self, plan: Plan) -> dict[str, Cost]:
        """Every cost of the pruned model, measured ones too."""
        return plan.costs() | dict(self._measured(plan.widths) if self._measured is not None else {})

    def evaluate(
        self,
        candidate: Candidate,
        seed: int,
        climb: Climb = always,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Evaluation:
        """Evaluate one candidate at rung 0, and at rung 1 if it climbs; deterministic in its arguments on one machine.

        Args:
            candidate: What to evaluate.
            seed: Of everything random.
            climb: Asked after rung 0; rung 1 fine-tunes the very model that rung 0 scored.
            on_step: Called with (steps done, steps in all) of the fine-tuning.

        Raises:
            EvaluationError: Fine-tuning diverged, memory ran out, or the pruned model is not what its plan says.
        """
        with within_memory(self.device):
            return self._evaluate(candidate, seed, climb, on_step)

    def _evaluate(
        self, candidate: Candidate, seed: int, climb: Climb, on_step: Callable[[int, int], None] | None
    ) -> Evaluation:
        start = time.perf_counter()
        plan = self.plan(candidate)
        costs = self.costs(plan)
        small = self.compress(plan)
        rungs = [RungScore(0, self._score(small, "val"), 0, time.perf_counter() - start)]
        finetuning = self.recipe.finetuning
        if finetuning is not None and climb(rungs[0].score, costs):
            start = time.perf_counter()
            small = self._finetune(small, finetuning, seed, on_step)
            rungs.append(RungScore(1, self._score(small, "val"), finetuning.steps, time.perf_counter() - start))
        worker = f"{socket.gethostname()}:{os.getpid()}"
        return Evaluation(candidate, plan.digest, tuple(rungs), costs, seed, worker)

    def finalist(
        self,
        candidate: Candidate,
        finetuning: FineTuning,
        seed: int,
        checkpoint: Checkpoint | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Trained:
        """Fine-tune a candidate from the dense weights for longer, and score it on validation and test data.

        With a checkpoint, one that was interrupted goes on to the same weights; see ``finetune``.
        """
        start = time.perf_counter()
        with within_memory(self.device):
            small = self._finetune(self.compress(self.plan(candidate)), finetuning, seed, on_step, checkpoint)
            val, test = self._score(small, "val"), self._score(small, "test")
        return Trained(small, val, test, finetuning.steps, time.perf_counter() - start)

    def compress(self, plan: Plan, on_step: Callable[[int, int], None] | None = None) -> nn.Module:
        """The pruned model, reconstructed and recalibrated as the recipe says, not trained.

        Its costs are checked against independent counts; what differs raises ``EvaluationError``.
        """
        small = prune(self.model, plan)
        problem = contradiction(count_costs(small, self._example), plan.costs())
        if problem is not None:
            raise EvaluationError(f"the pruned model {problem}; please report this model")
        self._repair(small, plan, on_step)
        return small

    def _repair(self, small: nn.Module, plan: Plan, on_step: Callable[[int, int], None] | None) -> None:
        samples, calibration = self.recipe.calibration_samples, self.calibration
        if self.recipe.sequential:
            if self._sequential is None:
                assert calibration is not None
                self._sequential = SequentialReconstruction(self.model, calibration, self.task, device=self.device)
            self._sequential(small, plan, on_step=on_step)
        elif self.recipe.reconstruct:
            assert calibration is not None
            reconstruct(small, self.model, plan, calibration)
        if self.recipe.recalibrate:
            recalibrate(small, self.task, samples=samples, device=self.device)

    def _score(self, model: nn.Module, split: Split) -> Score:
        """The score, which must be a number: NaN would be neither better nor worse than anything."""
        result = score(model, self.task, split, self.device)
        if not math.isfinite(result.value):
            raise EvaluationError(
                f"the {self.task.metric.name} on {split} is {result.value}: the pruned model's outputs are not finite; "
                "keep more channels, or lower the learning rate of fine-tuning"
            )
        return result

    def _finetune(
        self,
        model: nn.Module,
        recipe: FineTuning,
        seed: int,
        on_step: Callable[[int, int], None] | None,
        checkpoint: Checkpoint | None = None,
    ) -> nn.Module:
        seed = derive_seed("evaluation", seed)
        if recipe.devices or recipe.precision != "32-true":
            devices = check_devices(recipe.devices, recipe.precision) or (self.device,)
            dense = self.model if recipe.distillation > 0 else None
            return finetune_on(
                devices, model, self.task, recipe, seed=seed, teacher=dense, checkpoint=checkpoint, on_step=on_step
            )
        return finetune(
            model,
            self.task,
            recipe,
            seed=seed,
            device=self.device,
            teacher=self._teacher,
            checkpoint=checkpoint,
            on_step=on_step,
        )
