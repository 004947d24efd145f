"""The configuration file: strict, with errors that name the key, the value and the nearest known key."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from automl_prune.budget import Budget
from automl_prune.costs.latency import LatencySettings, runtimes
from automl_prune.errors import BudgetError, ConfigError, ModelError
from automl_prune.evaluation import FineTuning, Recipe
from automl_prune.factories import call, check_trust, import_function
from automl_prune.locations import with_paths
from automl_prune.redaction import redacted
from automl_prune.registry import nearest
from automl_prune.seeding import seeded
from automl_prune.space import Space, explain
from automl_prune.study.promotion import Promotion
from automl_prune.study.strategies import strategies
from automl_prune.tasks import Task, tasks
from automl_prune.training.baseline import Training
from automl_prune.yaml_file import overridden, read_mapping

_Count = Annotated[int, Field(ge=1)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(_Section):
    """Where the dense model comes from.

    Attributes:
        factory: ``package.module:function`` that builds it.
        args: Keyword arguments of the factory.
        weights: Safetensors of its parameters and buffers; None trains it on the spot.
    """

    factory: str
    args: Mapping[str, Any] = Field(default_factory=dict)
    weights: str | None = None


class SearchSection(_Section):
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

    strategy: str = "tpe"
    trials: _Count = 100
    patience: _Count | None = 50
    seed: int = 0

    @field_validator("strategy")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in strategies:
            raise ValueError(f"unknown strategy; {nearest(name, strategies)}")
        return name


class EvaluationSection(_Section):
    """How candidates and finalists are judged.

    Attributes:
        calibration_samples: Training samples for calibration and BatchNorm recalibration.
        reconstruct: Whether pruned layers get least-squares weights before anything is trained.
        sequential: Whether they are fitted layer by layer, which is better and takes seconds per candidate.
        finetune_steps: Steps of fine-tuning of the candidates that climb to rung 1; with 0 nobody does.
        promote: Which fraction of all candidates those within noise of a better one may be among (``Promotion``).
        learning_rate: Of the finalists' fine-tuning; ``auto`` measures it on the first one (``learning_rate.RATES``).
            Rung 1 always has 0.01.
        distill: Whether the dense model teaches.
        finalists: How many points of the front are fine-tuned longer and exported; with 0 none, and `export` does it
            for a trial one chooses.
        finetune_epochs: Epochs of a finalist's fine-tuning.
        seeds: Fine-tunings per finalist, for mean and interval.
        attempts: How often a trial is tried in all when its worker dies of it; then it is set aside, failed.
    """

    calibration_samples: _Count = 1024
    reconstruct: bool = True
    sequential: bool = False
    finetune_steps: Annotated[int, Field(ge=0)] = 100
    promote: Annotated[float, Field(ge=0, le=1)] = 0.33
    learning_rate: Literal["auto"] | _Positive = "auto"
    distill: bool = True
    finalists: Annotated[int, Field(ge=0)] = 5
    finetune_epochs: _Positive = 3.0
    seeds: _Count = 3
    attempts: _Count = 3

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
        return self.finetuning(max(1, round(self.finetune_epochs * batches)))

    def finetuning(self, steps: int) -> FineTuning:
        """A fine-tuning of so many steps, with rung 1's learning rate where none is given."""
        plain = FineTuning(steps, distillation=self._distillation)
        return plain if self.learning_rate == "auto" else replace(plain, learning_rate=self.learning_rate)

    @property
    def _distillation(self) -> float:
        return 0.9 if self.distill else 0.0


class LatencySection(_Section):
    """How latency is measured, where the budget or the search space asks for it.

    Attributes:
        runtime: ``onnxruntime``, ``torch``, ``torch.compile``, or one that a package has registered.
        provider: What the runtime computes with, by the runtime's own name for it; null is its first.
        threads: Threads of a call on the CPU.
        batch_size: Samples per call.
        precision: Half-width of the ratio's interval, relative to the ratio, at which a measurement ends.
        time_limit: Seconds after which it ends anyway, once it has an interval.
    """

    runtime: str = "onnxruntime"
    provider: str | None = None
    threads: _Count = 1
    batch_size: _Count = 1
    precision: _Positive = 0.02
    time_limit: _Positive = 10.0

    @field_validator("runtime")
    @classmethod
    def _registered(cls, name: str) -> str:
        if name not in runtimes:
            raise ValueError(f"unknown runtime; {nearest(name, runtimes)}")
        return name

    def settings(self) -> LatencySettings:
        """The same as settings."""
        return LatencySettings(**self.model_dump())


class SparseSection(_Section):
    """Strength of each penalty of ``automl-prune train --sparse``: its weight in the loss.

    Attributes:
        bn: Of the sum of absolute BatchNorm scales.
        kernel: Of the sum of the norms of all weights that compute a channel.
    """

    bn: _Positive = 1e-3
    kernel: _Positive = 1e-3


class TrainingSection(_Section):
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


class Config(_Section):
    """A whole configuration; make it with ``load``.

    Attributes:
        name: Of the study and its run directory; by default the name of the file's folder.
        model: Where the dense model comes from.
        data: ``name`` of a registered task or ``factory`` (``package.module:function``), and its arguments.
        budget: Upper bounds by metric, all hard; a number in (0, 1] is a fraction of the dense model. See ``Budget``.
        space: Path of the search space, a YAML file.
        search: How candidates are proposed.
        evaluation: How they are judged.
        training: How the dense model is trained.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    """

    name: str = Field(description="the folder's name")
    model: ModelSection
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    space: str
    search: SearchSection = SearchSection()
    evaluation: EvaluationSection = EvaluationSection()
    training: TrainingSection = TrainingSection()
    latency: LatencySection = LatencySection()
    device: str = "auto"

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
            raise ValueError("the name becomes a folder; use letters, digits, '-', '_' and '.'")
        return name

    @field_validator("budget")
    @classmethod
    def _readable_budget(cls, budget: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            Budget.parse(budget)
        except BudgetError as error:
            raise ValueError(str(error).removeprefix("budget: ").removeprefix("budget ")) from error
        return budget

    @field_validator("data")
    @classmethod
    def _one_source(cls, data: Mapping[str, Any]) -> Mapping[str, Any]:
        if ("name" in data) == ("factory" in data):
            raise ValueError("give either 'name' (a registered task) or 'factory' (package.module:function)")
        return data

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Config:
        """Read a configuration.

        ``~`` and ``$VARIABLES`` in paths are expanded. Relative paths in the file: ``model.weights`` lies in the
        file's folder; ``data.root`` and ``space`` are looked up there, in the folders above it and in the working
        directory, and ``space`` also among those that come with the package. Relative paths in ``overrides``
        are looked up in the working directory first.

        Args:
            path: A YAML file.
            overrides: ``"a.b=value"`` each, the value in YAML; later ones win.

        Raises:
            ConfigError: What is wrong, where, the value, and the fix.
        """
        path = Path(path)
        folder = path.resolve().parent
        values = read_mapping(path, "a config.yaml with model, data, budget and space")
        values = with_paths(values, folder, final=not overrides)
        return cls.of({"name": folder.name, **values}, overrides, source=str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> Config:
        """A configuration from plain values, such as those of a study; relative paths are looked up as in overrides.

        Raises:
            ConfigError: As ``load``; ``source`` names where the values come from.
        """
        for override in overrides:
            values = overridden(values, override)
        values = with_paths(values, Path.cwd(), final=True)
        given = {key: value for key, value in values.items() if value is not None}  # an empty section is an absent one
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from error

    def check_trust(self, trusted: Sequence[str]) -> None:
        """Refuse factories of packages that are not trusted; for configurations that somebody else has written.

        Raises:
            ConfigError: See ``factories.check_trust``.
        """
        check_trust(self.model.factory, "model.factory", trusted)
        if "factory" in self.data:
            check_trust(str(self.data["factory"]), "data.factory", trusted)

    def resolved(self) -> dict[str, Any]:
        """Plain values with absolute paths that ``load`` reads back to an equal configuration.

        Passwords and tokens are taken out: whoever loads it again gives them anew.
        """
        plain: dict[str, Any] = redacted(self.model_dump(mode="json"))
        return plain

    def load_space(self) -> Space:
        """The search space."""
        return Space.load(self.space)

    def parsed_budget(self) -> Budget:
        """The budget."""
        return Budget.parse(self.budget)

    def build_task(self) -> Task:
        """The data.

        Raises:
            ConfigError: An unknown task or argument, or a factory that fails or returns no ``Task``.
            DataError: Files are missing or damaged.
        """
        arguments = {key: value for key, value in self.data.items() if key not in ("name", "factory")}
        if "name" in self.data:
            label = str(self.data["name"])
            if label not in tasks:
                raise ConfigError(f"data.name: unknown data set {label!r}; {nearest(label, tasks)}")
            factory = tasks[label]
        else:
            label = str(self.data["factory"])
            factory = import_function(label, "data.factory")
        task = call(factory, arguments, label, "data")
        members = [name for name in vars(Task) if not name.startswith("_")]
        # static, because looking at a property's value may read data
        lacking = [name for name in members if inspect.getattr_static(task, name, None) is None]
        if lacking:
            raise ConfigError(
                f"data: {label} returned {type(task).__name__}, not a Task; it lacks {', '.join(lacking)}"
            )
        return task  # type: ignore[no-any-return]  # a user's function

    def build_model(self) -> nn.Module:
        """The factory's model, freshly initialised from ``search.seed``; no weights are read.

        Raises:
            ConfigError: The factory does not exist, or failed.
            ModelError: It returned something else.
        """
        factory = import_function(self.model.factory, "model.factory")
        with seeded("model", self.search.seed):
            model = call(factory, dict(self.model.args), self.model.factory, "model.args")
        if not isinstance(model, nn.Module):
            raise ModelError(
                f"model.factory {self.model.factory!r} returned {type(model).__name__}, not a torch.nn.Module"
            )
        return model
