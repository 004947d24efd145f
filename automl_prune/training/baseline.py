"""Train a dense model: deterministic, checkpointed after every epoch, resumed to the bit."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, Protocol

import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import ConfigError, DataError, EvaluationError, ModelError
from automl_prune.evaluation.layout import inference, training_format
from automl_prune.evaluation.memory import within_memory
from automl_prune.evaluation.score import score
from automl_prune.files import tensors_digest
from automl_prune.seeding import derive_seed, deterministic_kernels, seeded
from automl_prune.tasks.base import Score, Task, move

DIVERGED = 10.0
"""An epoch whose mean loss is this many times the loss before training has diverged."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a dense model is trained: SGD with one cycle of the learning rate.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Highest of the cycle.
        momentum: In [0, 1).
        nesterov: Whether the momentum looks ahead.
        weight_decay: L2, on all parameters.
        warmup: Fraction of the steps that the learning rate rises, in [0, 1).
        augment: Whether training images are augmented.
    """

    epochs: int = 8
    learning_rate: float = 0.1
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    warmup: float = 0.3
    augment: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"training.epochs is {self.epochs}; choose at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ConfigError(f"training.learning_rate is {self.learning_rate}; choose a positive number, e.g. 0.1")
        for name in ("momentum", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"training.{name} is {getattr(self, name)}; choose a number in [0, 1)")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ConfigError(f"training.weight_decay is {self.weight_decay}; choose 0 or more, e.g. 5e-4")

    @property
    def lookahead(self) -> bool:
        """Whether Nesterov's momentum applies; without momentum there is nothing to look ahead."""
        return self.nesterov and self.momentum > 0


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How an epoch went.

    Attributes:
        epoch: From 1.
        loss: Mean training loss over its steps.
        val: Score on the validation split after it.
    """

    epoch: int
    loss: float
    val: Score


class Regulariser(Protocol):
    """A penalty the gradient does not see: its proximal step follows every step of the optimiser."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What makes it another penalty, ready for JSON; a checkpoint of another one is refused."""
        ...

    def shrink(self, parameters: Mapping[str, torch.Tensor], step: float) -> None:
        """Replace parameters by the proximal operator of ``step`` times the penalty, in place, without gradient."""
        ...


def one_cycle(step: int, steps: int, peak: float, warmup: float) -> float:
    """Learning rate of a step: cosine from peak/25 up to peak, then cosine down towards 0.

    One cycle of Smith & Topin 2017 (arXiv:1708.07120) with cosine instead of linear parts.

    Args:
        step: From 0 to ``steps - 1``.
        steps: Of the whole training.
        peak: Highest value.
        warmup: Fraction of the steps that rise, in [0, 1).
    """
    rising = warmup * steps
    if step < rising:
        low = peak / 25
        return low + (peak - low) * (1 - math.cos(math.pi * step / rising)) / 2
    return peak * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def train(
    model: nn.Module,
    task: Task,
    recipe: Training,
    *,
    seed: int,
    device: torch.device,
    regulariser: Regulariser | None = None,
    checkpoint: Path | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[EpochReport], None] | None = None,
) -> nn.Module:
    """A trained copy of the model, on ``device``, in evaluation mode; the model itself is not changed.

    Equal arguments on one machine with one number of threads give equal bits. With a checkpoint, a training
    that was interrupted after any epoch goes on from there, to the same bits as an uninterrupted one.

    Args:
        model: Where training starts.
        task: Gives data and loss.
        recipe: How to train.
        seed: Of the order of samples, augmentation and dropout.
        device: Where to train.
        regulariser: A penalty besides the recipe's weight decay.
        checkpoint: Safetensors file, written after every epoch; read first when it exists.
        on_step: Called with (steps done, steps in all) after every step.
        on_epoch: Called after every epoch trained here (not for those the checkpoint holds).

    Raises:
        EvaluationError: The loss is not finite, or has grown tenfold; or memory ran out.
        CheckpointError: The checkpoint is damaged, or of another training.
        ModelError: The model cannot run on the data, or its outputs have no loss.
        DataError: The training split has no batch.
    """
    run = _Run(model, task, recipe, seed=seed, device=device, regulariser=regulariser, on_step=on_step)
    kept = None if checkpoint is None else Checkpoint(checkpoint, run.identity())
    start = 0 if kept is None else run.restore(kept)
    _check_fits(run.model, task, device)
    for epoch in range(start, recipe.epochs):
        with deterministic_kernels(), within_memory(device):
            loss = run.epoch(epoch)
        if kept is not None:
            kept.save(run.model, run.optimizer, {"epochs_done": epoch + 1, "first_loss": run.first_loss})
        if on_epoch is not None:
            on_epoch(EpochReport(epoch + 1, loss, score(run.model, task, "val", device)))
    return run.model.to(memory_format=torch.contiguous_format).eval()


def _check_fits(model: nn.Module, task: Task, device: torch.device) -> None:
    """The loss of one batch, so that a model that is not made for these data is told from a fault in the training."""
    first = next(iter(task.batches("train")), None)
    if first is None:
        raise DataError("the training split has no batch; lower data.batch_size or add samples")
    batch = move(first, device)
    inputs = task.inputs(batch)
    try:
        with within_memory(device), inference(model):
            task.loss(model(*inputs), batch)
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        shapes = " and ".join(str(tuple(tensor.shape)) for tensor in inputs)
        raise ModelError(
            f"the model cannot be trained on these data: for inputs of shape {shapes} it fails "
            f"({shorten(str(error), 200)}); check model.args (input channels, number of classes)"
        ) from error


class _Run:
    """The state of one training: a model and the momentum of its parameters."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        recipe: Training,
        *,
        seed: int,
        device: torch.device,
        regulariser: Regulariser | None,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self.initial = tensors_digest(model.state_dict())
        self.model: nn.Module = copy.deepcopy(model).to(device)
        self.model = self.model.to(memory_format=training_format(model, device))
        self.task, self.recipe, self.seed, self.device, self.on_step = task, recipe, seed, device, on_step
        self.regulariser, self.parameters = regulariser, dict(self.model.named_parameters())
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.lookahead,
            weight_decay=recipe.weight_decay,
        )
        self.first_loss: float | None = None

    def epoch(self, epoch: int) -> float:
        """Train one epoch; its mean loss."""
        batches = self.task.batches(
            "train", shuffle=derive_seed("train", self.seed, epoch), augment=self.recipe.augment
        )
        steps = len(batches) * self.recipe.epochs
        total = 0.0
        self.model.train()
        with seeded("train", self.seed, epoch, "dropout"):
            for number, batch in enumerate(batches):
                step = epoch * len(batches) + number
                rate = one_cycle(step, steps, self.recipe.learning_rate, self.recipe.warmup)
                total += self._step(move(batch, self.device), rate, step)
                if self.on_step is not None:
                    self.on_step(step + 1, steps)
        mean = total / len(batches)
        if self.first_loss is not None and self.first_loss > 0 and mean > DIVERGED * self.first_loss:
            raise self._diverged(
                f"{mean:.4g} on average at steps {epoch * len(batches) + 1} to {(epoch + 1) * len(batches)}, "
                f"{self.first_loss:.4g} at the first"
            )
        return mean

    def _step(self, batch: Any, rate: float, step: int) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.task.loss(self.model(*self.task.inputs(batch)), batch)
        value = loss.item()
        if self.first_loss is None:
            self.first_loss = value
        if not math.isfinite(value):
            raise self._diverged(f"{value} at step {step + 1} (learning rate {rate:.3g})")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.regulariser is not None:
            with torch.no_grad():  # momentum makes steps this much longer, so the penalty keeps its weight in the loss
                self.regulariser.shrink(self.parameters, rate / (1 - self.recipe.momentum))
        return value

    def _diverged(self, what: str) -> EvaluationError:
        rate = self.recipe.learning_rate
        return EvaluationError(
            f"training diverged: the loss is {what}; choose a lower training.learning_rate than {rate:g} "
            f"(try {rate / 10:g}), or check the data for wrong values"
        )

    def restore(self, checkpoint: Checkpoint) -> int:
        """Go on where a checkpoint stands; how many epochs are done."""
        progress = checkpoint.restore(self.model, self.optimizer)
        if progress is None:
            return 0
        self.first_loss = progress["first_loss"]
        return int(progress["epochs_done"])

    def identity(self) -> dict[str, Any]:
        """What a checkpoint of this training depends on."""
        return {
            "recipe": asdict(self.recipe),
            "seed": self.seed,
            "data": self.task.digest,
            "initial model": self.initial,
            "regulariser": None if self.regulariser is None else dict(self.regulariser.identity),
        }
