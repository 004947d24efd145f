"""The configuration file: strict, with errors that name the key, the value and the nearest known key."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator
from torch import nn

from automl_prune.budget import Budget
from automl_prune.errors import BudgetError, ConfigError, ModelError
from automl_prune.factories import call, check_trust, import_function
from automl_prune.locations import with_paths
from automl_prune.redaction import redacted
from automl_prune.registry import nearest
from automl_prune.sections import (
    EvaluationSection,
    LatencySection,
    ModelSection,
    SearchSection,
    Section,
    TrainingSection,
)
from automl_prune.seeding import seeded
from automl_prune.space import Space, explain
from automl_prune.tasks import Task, tasks
from automl_prune.yaml_file import overridden, read_mapping

DEFAULT_SPACE = "search_spaces/per_group.yaml"
"""It comes with the package."""


class Config(Section):
    """A whole configuration; make it with ``load``.

    Attributes:
        name: Of the study and its run directory; by default the file's name without ending, or its folder's
            where that is ``config``.
        model: Where the dense model comes from.
        data: ``name`` of a registered task or ``factory`` (``package.module:function``), and its arguments.
        budget: Upper bounds by metric, all hard; a number in (0, 1] is a fraction of the dense model. See ``Budget``.
        space: Path of the search space, a YAML file.
        search: How candidates are proposed.
        evaluation: How they are judged.
        training: How the dense model is trained.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    """

    name: str = Field(description="the file's name, or its folder's")
    model: ModelSection
    data: Mapping[str, Any]
    budget: Mapping[str, Any]
    space: str = DEFAULT_SPACE
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
        name = folder.name if path.stem == "config" else path.stem
        return cls.of({"name": name, **values}, overrides, source=str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> Config:
        """A configuration from plain values, such as those of a study; relative paths are looked up as in overrides.

        Raises:
            ConfigError: As ``load``; ``source`` names where the values come from.
        """
        for override in overrides:
            values = overridden(values, override)
        space = DEFAULT_SPACE if values.get("space") is None else values["space"]
        values = with_paths({**values, "space": space}, Path.cwd(), final=True)
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
        absent = object()
        lacking = [name for name in members if inspect.getattr_static(task, name, absent) is absent]
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
