"""Short fine-tuning of a pruned model, taught by the dense one."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import ConfigError, DataError, EvaluationError
from automl_prune.evaluation.layout import training_format
from automl_prune.evaluation.ranks import Alone, Ranks
from automl_prune.evaluation.teacher import Teacher
from automl_prune.interruption import interrupts_deferred
from automl_prune.seeding import derive_seed, deterministic_kernels, seeded
from automl_prune.tasks.base import Batch, Task, move

Precision: TypeAlias = Literal["32-true", "bf16-mixed"]
"""Of the arithmetic: single throughout, or bfloat16 where that is safe (weights and their steps stay single)."""

_WINDOW = 20
"""Steps over which the loss is averaged before it is called diverged."""
_DIVERGED = 10.0
"""Times the average loss of the first window."""


@dataclass(frozen=True, slots=True)
class FineTuning:
    """A recipe: SGD with Nesterov momentum, linear warm-up, cosine decay to zero.

    Attributes:
        steps: Optimiser steps.
        learning_rate: Highest of the schedule. A good start and a teacher want a small one.
        momentum: In (0, 1).
        weight_decay: L2 on weights of two and more dimensions; biases and norm scales are left free.
        warmup: Fraction of the steps in which the rate rises, in [0, 1).
        distillation: Weight of the distillation loss in [0, 1]; the task's own loss has the rest. 0 = no teacher.
        augment: Whether training samples are augmented.
        precision: See ``Precision``; other than ``32-true`` needs the extra ``multigpu``.
        devices: Torch devices that train together on parts of every batch (``parallel``); with none the evaluation's.
    """

    steps: int
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    distillation: float = 0.9
    augment: bool = True
    precision: Precision = "32-true"
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"fine-tuning needs at least 1 step, got {self.steps}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"the fine-tuning learning rate is {self.learning_rate}; choose a positive number")
        if not 0 < self.momentum < 1:
            raise ConfigError(f"the fine-tuning momentum is {self.momentum}; choose a number between 0 and 1")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"the fine-tuning weight decay is {self.weight_decay}; choose 0 or more, e.g. 5e-4")
        if not 0 <= self.distillation <= 1:
            raise ConfigError(f"the distillation weight is {self.distillation}; choose a number in [0, 1]")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"the warm-up fraction is {self.warmup}; choose a number in [0, 1)")
        if self.precision not in get_args(Precision):
            raise ConfigError(f"the precision is {self.precision!r}; choose one of {', '.join(get_args(Precision))}")

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the outcome, up to rounding: all but the devices."""
        return {key: value for key, value in asdict(self).items() if key != "devices"}

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = self.warmup * self.steps
        if step < rising:
            return self.learning_rate * (step + 1) / (rising + 1)
        return self.learning_rate * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising))) / 2


def finetune(
    model: nn.Module,
    task: Task,
    recipe: FineTuning,
    *,
    seed: int,
    device: torch.device,
    teacher: Teacher | None = None,
    checkpoint: Checkpoint | None = None,
    every: float = 60.0,
    on_step: Callable[[int, int], None] | None = None,
    ranks: Ranks | None = None,
) -> nn.Module:
    """Train a pruned model in place and return it, in evaluation mode.

    Equal arguments on one machine give equal weights, also when a training with a checkpoint was stopped or killed
    in between. The optimiser is new: one made before surgery would still hold the removed channels.

    Args:
        model: On ``device``; its weights change.
        task: Gives data and losses.
        recipe: How to train.
        seed: Of the samples' order, augmentation and dropout.
        device: Where to train.
        teacher: The dense model, on ``device``; needed when ``recipe.distillation`` > 0. Fine-tunings of one seed that
            share it ask it once.
        checkpoint: Read first when its file exists; written now and then, and at once when the process is asked to stop
            (Ctrl-C, SIGTERM), which then has its effect after the running step. The caller removes it.
        every: Seconds between two checkpoints.
        on_step: Called with (steps done, steps in all).
        ranks: The processes that take part, each of which makes this call (``parallel``); by default this one alone.

    Raises:
        EvaluationError: The loss is not finite or has grown tenfold.
        CheckpointError: The checkpoint is damaged, or of another training.
        DataError: The training split has no batch.
    """
    if recipe.distillation > 0 and teacher is None:
        raise ConfigError("distillation needs the dense model as teacher; pass it, or set distillation to 0")
    model.to(memory_format=training_format(model, device))
    run = _Run(model, task, recipe, seed, device, teacher, ranks or Alone())
    with deterministic_kernels():
        model.train()
        if checkpoint is None:
            run.train(on_step)
        else:
            run.train_with(checkpoint, every, on_step)
    model.to(memory_format=torch.contiguous_format)
    return model.eval()


class _Run:
    """One training: its model, momentum, place in the data, and what it knows of its loss."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: FineTuning,
        seed: int,
        device: torch.device,
        teacher: Teacher | None,
        ranks: Ranks,
    ) -> None:
        self.model, self.task, self.recipe, self.seed, self.device = model, task, recipe, seed, device
        self.teacher, self.ranks = teacher, ranks
        self.optimizer = _optimizer(model, recipe)
        self.trained = ranks.join(model)
        self.watch = _Watch(recipe)
        self.done = 0

    def train(self, on_step: Callable[[int, int], None] | None) -> None:
        """Take every step that is left."""
        for _ in self.steps(on_step):
            pass

    def train_with(self, checkpoint: Checkpoint, every: float, on_step: Callable[[int, int], None] | None) -> None:
        """Go on where the checkpoint stands, and keep it."""
        progress = checkpoint.restore(self.model, self.optimizer)
        if progress is not None:
            self.done = int(progress["steps_done"])
            self.watch.restore(progress["losses"], progress["reference"])
        saved = time.monotonic()
        with interrupts_deferred() as asked_to_stop:
            for done in self.steps(on_step):
                stop = self.ranks.any(asked_to_stop())
                if self.ranks.first and (stop or time.monotonic() - saved >= every):
                    losses = {"losses": list(self.watch.recent), "reference": self.watch.reference}
                    checkpoint.save(self.model, self.optimizer, {"steps_done": done, **losses})
                    saved = time.monotonic()
                if stop:
                    break

    def steps(self, on_step: Callable[[int, int], None] | None) -> Iterator[int]:
        """Take the steps that are left, one at a time; how many are done."""
        batches = _batches(self.task, self.recipe, self.seed, self.done)
        while self.done < self.recipe.steps:
            with seeded("finetune", self.seed, self.done):  # of the step alone: the same after a restart
                self._step(next(batches))
            self.done += 1
            if on_step is not None:
                on_step(self.done, self.recipe.steps)
            yield self.done

    def _step(self, batch: Batch) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.done)
        part, weight = self.ranks.share(batch)
        loss = _loss(self.trained, self.teacher, self.task, move(part, self.device), self.recipe.distillation) * weight
        self.watch.see(self.done, self.ranks.mean(loss))
        self.optimizer.zero_grad(set_to_none=True)
        self.ranks.backward(loss)
        self.optimizer.step()


def _optimizer(model: nn.Module, recipe: FineTuning) -> torch.optim.Optimizer:
    """A new optimiser over what the pruned model holds, without decay on biases and norms.

    Decay pulls scales and shifts of norms towards zero, which only slows a short recovery: they go without, as in
    He et al. 2019, "Bag of Tricks" (arXiv:1812.01187), section 3.1.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained:
        raise EvaluationError(
            "every parameter is frozen, so there is nothing to fine-tune; set requires_grad, or skip it"
        )
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=True)


def _batches(task: Task, recipe: FineTuning, seed: int, first: int) -> Iterator[Batch]:
    """Batches without end, epoch after epoch, from the step ``first`` on."""
    for epoch in count():
        batches = task.batches("train", shuffle=derive_seed("finetune", seed, epoch), augment=recipe.augment)
        if not len(batches):
            raise DataError("the training split has no batch; lower data.batch_size or add samples")
        if first >= len(batches):
            first -= len(batches)
            continue
        yield from islice(batches, first, None)  # of an epoch begun before, what was seen is read and dropped
        first = 0


def _loss(model: nn.Module, teacher: Teacher | None, task: Task, batch: Batch, distillation: float) -> torch.Tensor:
    inputs = task.inputs(batch)
    outputs = model(*inputs)
    if teacher is None or distillation == 0:
        return task.loss(outputs, batch)
    loss = distillation * task.distillation_loss(outputs, teacher(*inputs))
    if distillation < 1:
        loss = loss + (1 - distillation) * task.loss(outputs, batch)
    return loss


class _Watch:
    """Raises when the loss is not finite or has grown beyond hope."""

    def __init__(self, recipe: FineTuning) -> None:
        self.recipe = recipe
        self.reference: float | None = None
        self.recent: deque[float] = deque(maxlen=_WINDOW)

    def restore(self, recent: Iterable[float], reference: float | None) -> None:
        """Know again what a watch had seen."""
        self.recent.extend(recent)
        self.reference = reference

    def see(self, step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._error(step, f"is {loss}")
        self.recent.append(loss)
        if len(self.recent) < _WINDOW:
            return
        mean = sum(self.recent) / _WINDOW
        if self.reference is None:
            self.reference = mean
        elif self.reference > 0 and mean > _DIVERGED * self.reference:
            raise self._error(step, f"has grown from {self.reference:.4g} to {mean:.4g} (means of {_WINDOW} steps)")

    def _error(self, step: int, what: str) -> EvaluationError:
        return EvaluationError(
            f"fine-tuning diverged: the loss {what} at step {step + 1} of {self.recipe.steps} (learning rate "
            f"{self.recipe.rate(step):.3g}); choose a lower learning rate than {self.recipe.learning_rate:g}"
        )
