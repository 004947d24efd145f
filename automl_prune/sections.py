"""The sections of a configuration, each with what it makes: recipes, settings, and the defaults."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from automl_prune.costs.latency import LatencySettings, runtimes
from automl_prune.evaluation import FineTuning, Precision, Recipe
from automl_prune.registry import nearest
from automl_prune.study.promotion import Promotion
from automl_prune.study.strategies import strategies
from automl_prune.tasks import Task
from automl_prune.training.baseline import Training

_Count = Annotated[int, Field(ge=1)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]


def _registered(known: Collection[str], kind: str) -> AfterValidator:
    """Refuses names that nothing is registered by."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind}; {nearest(name, known)}")
        return name

    return AfterValidator(check)


class Section(BaseModel):
    """Strict: an unknown key or a value of another type is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(Section):
    """Where the dense model comes from.

    Attributes:
        factory: ``package.module:function`` that builds it.
        args: Keyword arguments of the factory.
        weights: Safetensors of its parameters and buffers; None trains it on the spot.
    """

    factory: str
    args: Mapping[str, Any] = Field(default_factory=dict)
    weights: str | None = None


class SearchSection(Section):
    """How candidates are proposed, and how many.

    Attributes:
        strategy: ``tpe``, ``gp``, ``nsga2``, ``nsga3``, ``cmaes``, ``ddpg``, ``ddpg_cost``, ``random``, or one that a
            package has registered.
        trials: How many candidates are evaluated, baselines included.
        patience: Trials of the search without growth of the front after which it stops early; None never does. The
            default is half the default number of trials: a short search always runs to its end. It may be changed
            when a search is resumed.
        seed: Of everything random.
    """

    strategy: Annotated[str, _registered(strategies, "strategy")] = "tpe"
    trials: _Count = 100
    patience: _Count | None = 50
    seed: int = 0


class EvaluationSection(Section):
    """How candidates and finalists are judged.

    Attributes:
        calibration_samples: Training samples for calibration and BatchNorm recalibration.
        reconstruct: Whether pruned layers get least-squares weights before anything is trained.
        sequential: Whether they are fitted layer by layer, on what each really reads: much better, for one forward pass
            of 512 samples per candidate.
        finetune_steps: Steps of fine-tuning of the candidates that climb to rung 1; with 0 nobody does.
        promote: Which fraction of all candidates those within noise of a better one may be among (``Promotion``). It
            may be changed when a search is resumed.
        learning_rate: Of the finalists' fine-tuning; ``auto`` measures it on the first one (``learning_rate.RATES``).
            Rung 1 always has 0.01.
        distill: Whether the dense model teaches.
        finalists: How many points of the front are fine-tuned longer and exported; with 0 none, and `export` does it
            for a trial one chooses.
        finetune_epochs: Epochs of a finalist's fine-tuning.
        seeds: Fine-tunings per finalist, for mean and interval.
        finalist_devices: That fine-tune each finalist together, e.g. ``[cuda:0, cuda:1]``, each with a part of every
            batch (extra ``multigpu``); without any, the one that everything runs on.
        finalist_precision: ``bf16-mixed`` trains finalists in bfloat16 where that is safe (extra ``multigpu``).
        attempts: How often a trial is tried in all when its worker dies of it; then it is set aside, failed.
    """

    calibration_samples: _Count = 1024
    reconstruct: bool = True
    sequential: bool = True
    finetune_steps: Annotated[int, Field(ge=0)] = 100
    promote: Annotated[float, Field(ge=0, le=1)] = 0.33
    learning_rate: Literal["auto"] | _Positive = "auto"
    distill: bool = True
    finalists: Annotated[int, Field(ge=0)] = 5
    finetune_epochs: _Positive = 3.0
    seeds: _Count = 3
    attempts: _Count = 3
    finalist_devices: Annotated[tuple[str, ...], Field(strict=False)] = ()
    finalist_precision: Precision = "32-true"

    @field_validator("learning_rate", mode="before")
    @classmethod
    def _auto_or_number(cls, rate: Any) -> Any:
        number = isinstance(rate, (int, float)) and not isinstance(rate, bool) and rate > 0
        if rate != "auto" and not number:
            raise ValueError("give a positive number, or auto to have it measured on the first finalist")
        return rate

    def recipe(self) -> Recipe:
        """The evaluation of candidates."""
        finetuning = FineTuning(self.finetune_steps, distillation=self._distillation) if self.finetune_steps else None
        return Recipe(self.calibration_samples, finetuning, self.reconstruct, self.sequential and self.reconstruct)

    def promotion(self) -> Promotion | None:
        """Which candidates are fine-tuned at all; None where none is."""
        return Promotion(self.finetune_steps, self.promote) if self.finetune_steps else None

    def finalist(self, task: Task) -> FineTuning:
        """The fine-tuning of finalists on a task's data; with ``auto`` its learning rate is yet to be chosen."""
        batches = len(task.batches("train", shuffle=0))
        plain = self.finetuning(max(1, round(self.finetune_epochs * batches)))
        return replace(plain, devices=self.finalist_devices, precision=self.finalist_precision)

    def finetuning(self, steps: int) -> FineTuning:
        """A fine-tuning of so many steps, with rung 1's learning rate where none is given."""
        plain = FineTuning(steps, distillation=self._distillation)
        return plain if self.learning_rate == "auto" else replace(plain, learning_rate=self.learning_rate)

    @property
    def _distillation(self) -> float:
        return 0.9 if self.distill else 0.0


class LatencySection(Section):
    """How latency is measured, where the budget or the search space asks for it.

    Attributes:
        runtime: ``onnxruntime``, ``torch``, ``torch.compile``, or one that a package has registered.
        provider: What the runtime computes with, by the runtime's own name for it; null is its first.
        threads: Threads of a call on the CPU.
        batch_size: Samples per call.
        precision: Half-width of the ratio's interval, relative to the ratio, at which a measurement ends.
        time_limit: Seconds after which it ends anyway, once it has an interval.
    """

    runtime: Annotated[str, _registered(runtimes, "runtime")] = "onnxruntime"
    provider: str | None = None
    threads: _Count = 1
    batch_size: _Count = 1
    precision: _Positive = 0.02
    time_limit: _Positive = 10.0

    def settings(self) -> LatencySettings:
        """The same as settings."""
        return LatencySettings(**self.model_dump())


class SparseSection(Section):
    """Strength of each penalty of ``automl-prune train --sparse``: its weight in the loss.

    Attributes:
        bn: Of the sum of absolute BatchNorm scales.
        kernel: Of the sum of the norms of all weights that compute a channel.
    """

    bn: _Positive = 1e-3
    kernel: _Positive = 1e-3


class TrainingSection(Section):
    """How the dense model is trained, where it is: SGD with one cycle of the learning rate.

    Attributes:
        epochs: Passes over the training split.
        learning_rate: Highest of the cycle.
        momentum: Of SGD.
        nesterov: Whether the momentum looks ahead.
        weight_decay: L2, on all parameters.
        warmup: Fraction of the steps in which the learning rate rises.
        augment: Whether training images are augmented.
        sparse: For ``train --sparse`` alone.
    """

    epochs: _Count = 8
    learning_rate: _Positive = 0.1
    momentum: _Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: _Fraction = 0.3
    augment: bool = True
    sparse: SparseSection = SparseSection()

    def recipe(self) -> Training:
        """The same as a training recipe."""
        return Training(**self.model_dump(exclude={"sparse"}))
