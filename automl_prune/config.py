"""The configuration file: strict, with errors that name the key, the value and the nearest known key."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from torch import nn

from automl_prune.budget import Budget
from automl_prune.errors import BudgetError, CheckpointError, ConfigError, ModelError
from automl_prune.evaluation import FineTuning, Recipe
from automl_prune.files import load_tensors
from automl_prune.registry import nearest
from automl_prune.seeding import seeded
from automl_prune.space import Space, explain
from automl_prune.study.strategies import strategies
from automl_prune.tasks import Task, tasks
from automl_prune.training.baseline import Training

_Count = Annotated[int, Field(ge=1)]
_Fraction = Annotated[float, Field(ge=0, lt=1)]
_Positive = Annotated[float, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


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
    """How candidates are proposed, how many, and the seed of everything random."""

    strategy: str = "tpe"
    trials: _Count = 100
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
        calibration_samples: Training samples for BatchNorm recalibration.
        finetune_steps: Steps of fine-tuning of every candidate; 0 scores without training.
        learning_rate: Of fine-tuning, candidates and finalists alike.
        distill: Whether the dense model teaches.
        finalists: How many points of the front are fine-tuned longer and exported.
        finetune_epochs: Epochs of a finalist's fine-tuning.
        seeds: Fine-tunings per finalist, for mean and interval.
    """

    calibration_samples: _Count = 1024
    finetune_steps: Annotated[int, Field(ge=0)] = 100
    learning_rate: _Positive = 0.01
    distill: bool = True
    finalists: _Count = 5
    finetune_epochs: _Positive = 3.0
    seeds: _Count = 3

    def recipe(self) -> Recipe:
        """The evaluation of candidates."""
        return Recipe(self.calibration_samples, self._finetuning(self.finetune_steps) if self.finetune_steps else None)

    def finalist(self, task: Task) -> FineTuning:
        """The fine-tuning of finalists on a task's data."""
        batches = len(task.batches("train", shuffle=0))
        return self._finetuning(max(1, round(self.finetune_epochs * batches)))

    def _finetuning(self, steps: int) -> FineTuning:
        return FineTuning(steps, self.learning_rate, distillation=0.9 if self.distill else 0.0)


class TrainingSection(_Section):
    """How the dense model is trained; see ``training.baseline.Training``."""

    epochs: _Count = 8
    learning_rate: _Positive = 0.1
    momentum: _Fraction = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    warmup: _Fraction = 0.3
    augment: bool = True

    def recipe(self) -> Training:
        """The same as a training recipe."""
        return Training(**self.model_dump())


class Config(_Section):
    """A whole configuration; make it with ``load``.

    Attributes:
        name: Of the study and its run directory; by default the name of the file's folder.
        data: ``name`` of a registered task or ``factory`` (``package.module:function``), and its arguments.
        budget: Bounds by metric, see ``Budget``.
        space: Path of the search space.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    """

    name: str
    model: ModelSection
    data: Mapping[str, Any]
    budget: Mapping[str, float | int | str]
    space: str
    search: SearchSection = SearchSection()
    evaluation: EvaluationSection = EvaluationSection()
    training: TrainingSection = TrainingSection()
    device: str = "auto"

    @field_validator("name")
    @classmethod
    def _plain_name(cls, name: str) -> str:
        if not name or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
            raise ValueError("the name becomes a folder; use letters, digits, '-', '_' and '.'")
        return name

    @field_validator("budget")
    @classmethod
    def _readable_budget(cls, budget: Mapping[str, float | int | str]) -> Mapping[str, float | int | str]:
        try:
            Budget.parse(budget)
        except BudgetError as error:
            raise ValueError(str(error)) from error
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

        Relative paths (``space``, ``model.weights``, ``data.root``) are looked up in the file's folder, then in the
        folders above it, then in the working directory; ``~`` and ``$VARIABLES`` are expanded.

        Args:
            path: A YAML file.
            overrides: ``"a.b=value"`` each, the value in YAML.

        Raises:
            ConfigError: What is wrong, where, the value, and the fix.
        """
        path = Path(path)
        values = _read_yaml(path)
        for override in overrides:
            _override(values, override)
        values.setdefault("name", path.resolve().parent.name)
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, str(path))) from error
        folder = path.resolve().parent
        weights = config.model.weights
        model = config.model.model_copy(update={"weights": weights and _find(weights, folder, new_in=folder)})
        data = dict(config.data)
        if isinstance(data.get("root"), str):
            data["root"] = _find(data["root"], folder, new_in=Path.cwd())
        space = _find(config.space, folder, new_in=Path.cwd())
        return config.model_copy(update={"model": model, "data": data, "space": space})

    def resolved(self) -> dict[str, Any]:
        """Plain values with absolute paths that ``load`` reads back to an equal configuration."""
        return self.model_dump(mode="json")

    def load_space(self) -> Space:
        """The search space."""
        return Space.load(self.space)

    def parsed_budget(self) -> Budget:
        """The budget."""
        return Budget.parse(self.budget)

    def build_task(self) -> Task:
        """The data; wrong arguments are a ``ConfigError``, missing or damaged files a ``DataError``."""
        arguments = {key: value for key, value in self.data.items() if key not in ("name", "factory")}
        if "name" in self.data:
            factory, label = tasks[str(self.data["name"])], f"data {self.data['name']!r}"
        else:
            factory, label = import_function(str(self.data["factory"]), "data.factory"), str(self.data["factory"])
        return _call(factory, arguments, label, "data")  # type: ignore[no-any-return]  # a user's function

    def build_model(self) -> nn.Module:
        """The factory's model, freshly initialised from the seed; no weights are read."""
        factory = import_function(self.model.factory, "model.factory")
        with seeded("model", self.search.seed):
            model = _call(factory, dict(self.model.args), self.model.factory, "model.args")
        if not isinstance(model, nn.Module):
            raise ModelError(f"model.factory {self.model.factory!r} returned {type(model).__name__}, not an nn.Module")
        return model


def load_weights(model: nn.Module, path: Path) -> dict[str, str]:
    """Put safetensors into a model, strictly; returns the file's metadata.

    Raises:
        CheckpointError: Damaged, or tensors are missing, unknown or of another shape; the message lists them.
    """
    tensors, metadata = load_tensors(path)
    expected = model.state_dict()
    problems = [f"{name!r} is missing" for name in expected if name not in tensors]
    problems += [f"{name!r} is not in the model" for name in tensors if name not in expected]
    problems += [
        f"{name!r} has shape {tuple(tensors[name].shape)}, the model wants {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems += [f"{name!r} holds NaN or infinity" for name, t in tensors.items() if not bool(t.isfinite().all())]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(
            f"{path} does not fit the model: {'; '.join(problems[:5])}{more}; check model.factory and model.args"
        )
    model.load_state_dict(tensors)
    return metadata


def import_function(reference: str, key: str) -> Callable[..., Any]:
    """The function a ``package.module:function`` names; else a ``ConfigError`` for the key it stands at."""
    module_name, colon, name = reference.partition(":")
    if not colon or not module_name or not name:
        raise ConfigError(f"{key} is {reference!r}; write it as 'package.module:function'")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{key} {reference!r}: {error}; is it installed, or on PYTHONPATH?") from error
    function = getattr(module, name, None)
    if not callable(function):
        public = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"{key}: {module_name} has no function {name!r}; {nearest(name, public)}")
    return function  # type: ignore[no-any-return]  # a user's function


def _call(factory: Callable[..., Any], arguments: Mapping[str, Any], label: str, key: str) -> Any:
    """Call a factory; arguments it does not take are named with the nearest it does."""
    parameters = inspect.signature(factory).parameters.values()
    named = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        for name in arguments:
            if name not in named:
                raise ConfigError(f"{key}: {label} takes no argument {name!r}; {nearest(name, named)}")
    required = [p.name for p in parameters if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    for name in required:
        if name not in arguments:
            raise ConfigError(f"{key}: {label} needs the argument {name!r}; add {key}.{name}")
    try:
        return factory(**arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {label} refused {dict(arguments)}: {error}") from error


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; give the path of a config.yaml") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {type(values).__name__}; a configuration is a mapping with model, data, ...")
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write it as key.subkey=value")
    *parents, last = key.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is {child!r}, not a section")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from error


def _find(text: str, folder: Path, *, new_in: Path) -> str:
    """The path a text means: the first that exists from the folder upwards, then the working directory."""
    path = Path(os.path.expandvars(text)).expanduser()
    if path.is_absolute():
        return str(path)
    for base in (folder, *folder.parents, Path.cwd()):
        if (base / path).exists():
            return str(base / path)
    return str(new_in / path)
