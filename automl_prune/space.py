"""What a search may vary, read from YAML: its parameters, and how narrow each group may become."""

from __future__ import annotations

import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria import criteria as known_criteria
from automl_prune.errors import ConfigError
from automl_prune.registry import nearest
from automl_prune.yaml_file import parse as parse_yaml


@dataclass(frozen=True, slots=True)
class FloatParameter:
    """A real number from ``low`` to ``high``, both included."""

    name: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ChoiceParameter:
    """One of some names, without an order."""

    name: str
    choices: tuple[str, ...]


Parameter = FloatParameter | ChoiceParameter


@dataclass(frozen=True, slots=True)
class WidthLimits:
    """The widths a group may take: multiples of ``step`` from ``low`` to ``high``, and ``high`` itself.

    Attributes:
        low: Least width.
        high: Greatest width, the dense one; always allowed, a multiple or not.
        step: Widths between are multiples of it.
    """

    low: int
    high: int
    step: int

    @classmethod
    def of(cls, width: int, *, round_to: int, min_width: int, max_prune_ratio: float) -> WidthLimits:
        """The limits that honour all three rules for ``width`` channels; rounding keeps more, never fewer."""
        # The small tolerance takes back float noise: 10 channels and a ratio of 0.7 leave 3, not 4.
        keep = width - math.floor(max_prune_ratio * width + 1e-9)
        low = math.ceil(max(keep, min_width, 1) / round_to) * round_to
        return cls(min(low, width), width, round_to)

    def widths(self) -> tuple[int, ...]:
        """Every allowed width, ascending."""
        return (*range(self.low, self.high, self.step), self.high)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


_Width = Annotated[int, Field(ge=1)]
_Ratio = Annotated[float, Field(ge=0, le=1)]
_Names = Annotated[tuple[str, ...], Field(strict=False)]  # YAML has lists only

Allocation = Literal["uniform", "global", "greedy", "knapsack"]
"""How widths are shared out: the same fraction of every group, by rank of all channels together, by greedy steps of
least error, or by a knapsack over errors (``projection.allocator``)."""


class GroupBounds(_Strict):
    """Bounds of the groups that match a pattern; what is absent is taken from the space.

    Attributes:
        round_to: As in ``Space``.
        min_width: As in ``Space``.
        max_prune_ratio: As in ``Space``.
    """

    round_to: _Width | None = None
    min_width: _Width | None = None
    max_prune_ratio: _Ratio | None = None


class Space(_Strict):
    """A search space. Immutable; the defaults are those of ``search_spaces/per_group.yaml``.

    A candidate's widths follow from few numbers (see ``projection.py``): the share of the budget it
    spends, how far groups with concentrated importance are cut deeper than others, and a correction per
    group.

    Attributes:
        criteria: Registered criteria the search chooses from.
        criterion_scope: One criterion for all groups, or one for each.
        target_cost: Least share of the budget a candidate spends, in (0, 1]; the greatest is 1.
        allocations: What candidates start from, one for each: the fractions that ``importance_exponent`` and
            ``residual`` correct. All but ``uniform`` go by the first criterion's scores, whichever criterion chooses
            the channels. With ``uniform`` among them, every uniform pruning is a point of the space.
        importance_exponent: Range of the exponent of a group's importance. It contains 0, where importance has no say.
        residual: Half-width of the natural logarithm of each group's correction factor; 0 for none.
        coefficient: Half-width of the natural logarithm of each group's coefficient. With one, widths are those of
            least summed error, each group's error times its coefficient, instead of a kept fraction with
            corrections: ``allocations``, ``importance_exponent`` and ``residual`` have no place then.
        depth_slope: Half-width of a slope of all corrections or coefficients over the groups, from -slope at the first
            to +slope at the last; 0 for none.
        scope: Whether every group has a correction or coefficient of its own, or every stage of the network.
        round_to: Widths are multiples of it (or dense). ``auto`` measures which ones are fast where the model is to
            run, and takes those.
        min_width: Least width of a group, in channels.
        max_prune_ratio: Greatest fraction of a group that may be removed, in [0, 1].
        exclude: Patterns (``*``, ``?``) of group names that stay as they are.
        bounds: Bounds by pattern of group names; where several match, later ones win.
    """

    criteria: Annotated[_Names, Field(min_length=1)] = ("obs", "l1", "l2", "geometric_median", "bn_scale")
    criterion_scope: Literal["all", "group"] = "all"
    target_cost: Annotated[float, Field(gt=0, le=1)] = 0.7
    allocations: Annotated[tuple[Allocation, ...], Field(strict=False, min_length=1)] = get_args(Allocation)
    importance_exponent: Annotated[tuple[float, float], Field(strict=False)] = (-0.3, 0.6)
    residual: Annotated[float, Field(ge=0, le=5)] = 0.5
    coefficient: Annotated[float, Field(gt=0, le=10)] | None = None
    depth_slope: Annotated[float, Field(ge=0, le=5)] = 0.0
    scope: Literal["group", "stage"] = "group"
    round_to: _Width | Literal["auto"] = 1
    min_width: _Width = 2
    max_prune_ratio: _Ratio = 0.9
    exclude: _Names = ()
    bounds: Mapping[str, GroupBounds] = Field(default_factory=dict)

    @field_validator("criteria")
    @classmethod
    def _registered(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in known_criteria:
                raise ValueError(f"no criterion is named {name!r}; {nearest(name, known_criteria)}")
        if len(set(names)) < len(names):
            raise ValueError(f"a criterion is listed twice in {list(names)}; list each once")
        return names

    @field_validator("allocations")
    @classmethod
    def _once(cls, names: tuple[Allocation, ...]) -> tuple[Allocation, ...]:
        if len(set(names)) < len(names):
            raise ValueError(f"an allocation is listed twice in {list(names)}; list each once")
        return names

    @field_validator("round_to", mode="before")
    @classmethod
    def _auto_or_width(cls, value: Any) -> Any:
        width = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value != "auto" and not width:
            raise ValueError("give a whole number of at least 1, or auto to have it measured")
        return value

    @field_validator("importance_exponent")
    @classmethod
    def _contains_zero(cls, bounds: tuple[float, float]) -> tuple[float, float]:
        low, high = bounds
        if not -math.inf < low <= 0 <= high < math.inf:
            raise ValueError("expected [low, high] with low <= 0 <= high, so that uniform pruning is in the space")
        return bounds

    @model_validator(mode="after")
    def _one_kind(self) -> Space:
        besides = [  # a study keeps the whole space, so what is given may be a default
            name
            for name in ("allocations", "importance_exponent", "residual")
            if getattr(self, name) != type(self).model_fields[name].default
        ]
        if self.coefficient is not None and besides:
            raise ValueError(f"coefficient takes the place of {' and '.join(besides)}; leave out one or the other")
        return self

    @classmethod
    def load(cls, path: Path | str) -> Space:
        """Read a space from YAML.

        Raises:
            ConfigError: The file is missing, not YAML, or has a wrong key or value; the message names the
                file, the key, the value and the nearest known key.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"search space {path} cannot be read: {error}; give a YAML file") from error
        value = parse_yaml(text, str(path))
        return cls.parse({} if value is None else value, source=str(path))

    @classmethod
    def parse(cls, value: object, *, source: str) -> Space:
        """A space from plain values that come from ``source``; what is wrong raises ``ConfigError``."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ConfigError(explain(error, cls, source)) from error

    @property
    def correction(self) -> Literal["residual", "coefficient"]:
        """What a parameter of a group or stage is; its name begins with it and a slash."""
        return "residual" if self.coefficient is None else "coefficient"

    def parameters(self, groups: Sequence[str], stages: Mapping[str, str] | None = None) -> tuple[Parameter, ...]:
        """What a strategy proposes values for; a parameter with a single possible value is left out.

        Args:
            groups: Names of the prunable groups, in network order.
            stages: The stage of each group, for the scope ``stage``; by default every group is one.
        """
        excluded = self._excluded(groups)
        free = [group for group in groups if group not in excluded]
        found: list[Parameter] = [FloatParameter("target_cost", self.target_cost, 1.0)]
        if len(self.allocations) > 1 and self.coefficient is None:
            found.append(ChoiceParameter("allocation", self.allocations))
        low, high = self.importance_exponent
        if low < high and self.coefficient is None:
            found.append(FloatParameter("importance_exponent", low, high))
        if self.depth_slope > 0:
            found.append(FloatParameter("depth_slope", -self.depth_slope, self.depth_slope))
        reach = self.residual if self.coefficient is None else self.coefficient
        if reach > 0:
            units = dict.fromkeys(
                (stages or {}).get(group, group) if self.scope == "stage" else group for group in free
            )
            found += [FloatParameter(f"{self.correction}/{unit}", -reach, reach) for unit in units]
        if len(self.criteria) > 1 and self.criterion_scope == "all":
            found.append(ChoiceParameter("criterion", self.criteria))
        elif len(self.criteria) > 1:
            found += [ChoiceParameter(f"criterion/{group}", self.criteria) for group in free]
        return tuple(found)

    def limits(self, groups: Sequence[ChannelGroup]) -> dict[str, WidthLimits]:
        """Which widths every group may take, by group name, in the order given.

        Raises:
            ConfigError: A pattern of ``exclude`` or ``bounds`` matches no group.
        """
        names = [group.name for group in groups]
        excluded = self._excluded(names)
        for pattern in self.bounds:
            _matching(pattern, names, "bounds")
        return {
            group.name: WidthLimits(group.width, group.width, 1)
            if group.name in excluded
            else WidthLimits.of(group.width, **self._rules(group.name))
            for group in groups
        }

    def _rules(self, group: str) -> dict[str, Any]:
        rules: dict[str, Any] = {key: getattr(self, key) for key in GroupBounds.model_fields}
        rules["round_to"] = 1 if rules["round_to"] == "auto" else rules["round_to"]
        for pattern, bounds in self.bounds.items():
            if fnmatchcase(group, pattern):
                rules |= bounds.model_dump(exclude_none=True)
        return rules

    def _excluded(self, names: Sequence[str]) -> set[str]:
        return {name for pattern in self.exclude for name in _matching(pattern, names, "exclude")}


def _matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    found = [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"search space: {key}: {pattern!r} matches no channel group; {nearest(pattern, names)}")
    return found


def explain(error: ValidationError, model: type[BaseModel], source: str) -> str:
    """A validation error in one line per problem: where, what, the value, the nearest known key.

    Args:
        error: What pydantic raised.
        model: The model that was validated; its fields are the known keys.
        source: The file or section the values come from.
    """
    return "\n".join(f"{source}: {_problem(detail, model)}" for detail in error.errors())


def _problem(detail: Any, model: type[BaseModel]) -> str:
    *parents, last = detail["loc"] or ("",)
    where = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {nearest(str(last), _known_keys(model, parents))}"
    if detail["type"] == "missing":
        return f"key {where!r} is missing; add it"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{where or 'the file'}: {message} (got {detail['input']!r})"


def _known_keys(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Keys of the model nested at ``path``, past the parts that name no field (indices, keys of mappings)."""
    for part in path:
        field = model.model_fields.get(str(part))
        inner = list(_models_in(field.annotation)) if field else []
        model = inner[0] if inner else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
