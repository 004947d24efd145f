"""A pruned model as files: weights and the plan that restores them into the user's own factory.

Nothing in the files is executed: the architecture comes from the user's code, the plan is JSON of names and
indices, the weights are safetensors.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.channels import Plan, slice_model
from automl_prune.errors import CheckpointError, PlanError
from automl_prune.files import load_tensors, read_json, save_tensors, write_json

PLAN = "plan.json"
WEIGHTS = "weights.safetensors"
FORMAT = 2
"""Version of the two files' layout; raised when an older reader would misread them."""


def save_pruned(directory: Path, model: nn.Module, plan: Plan) -> None:
    """Write ``weights.safetensors`` and ``plan.json``; ``load_pruned`` inverts it.

    Args:
        directory: Made when missing.
        model: The pruned model; not changed.
        plan: What made it from the dense model.

    Raises:
        CheckpointError: The model's tensors are not those the plan makes, or its state holds more than tensors.
    """
    content = plan.to_json()
    content["dense_shapes"] = {name: list(shape) for name, shape in plan.graph.shapes.items()}
    stored = _Stored.parse(content, "the plan")
    state = model.state_dict()
    foreign = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if foreign:
        raise CheckpointError(f"state_dict entry {foreign[0]!r} is no tensor and cannot be stored; remove it")
    actual = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    _compare(stored.pruned_shapes, actual, "the model was not made by this plan")
    checksum = _checksum(content)
    write_json(directory / PLAN, {"format": FORMAT, "checksum": checksum, **content})
    save_tensors(directory / WEIGHTS, state, {"format": str(FORMAT), "plan": checksum})


def load_pruned(directory: str | Path, model: nn.Module) -> nn.Module:
    """The pruned model: the user's own dense one, cut as ``plan.json`` says, with the stored weights.

    Args:
        directory: Holds ``plan.json`` and ``weights.safetensors``.
        model: A dense model fresh from the factory the search started from; its weights do not matter, and it is
            not changed. Parameters it ties stay tied.

    Returns:
        A new module in evaluation mode, on the device of ``model``.

    Raises:
        CheckpointError: A file is missing, damaged or changed, or belongs to another model.
    """
    path = Path(directory) / PLAN
    content = read_json(path)
    stored = _Stored.read(content, path)
    dense = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    _compare(stored.dense_shapes, dense, f"{path} is of another model than the one given")
    try:
        pruned = slice_model(model, stored.slices, stored.sizes)
    except PlanError as error:
        raise CheckpointError(f"{path} cannot be applied: {error}; export the model again") from error
    weights, metadata = load_tensors(Path(directory) / WEIGHTS)
    if metadata.get("plan") != content["checksum"]:
        raise CheckpointError(
            f"{Path(directory) / WEIGHTS} was not saved together with {PLAN}; copy both from one export"
        )
    _load(pruned, weights, Path(directory) / WEIGHTS)
    return pruned.eval()


def _load(model: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Fill the model, every tensor of equal name, shape and type; nothing is cast, nothing is left as it was."""
    state = model.state_dict()
    _compare({n: tuple(t.shape) for n, t in state.items()}, {n: tuple(t.shape) for n, t in weights.items()}, str(path))
    for name, tensor in weights.items():
        if tensor.dtype != state[name].dtype:
            raise CheckpointError(
                f"{path}: {name!r} is {tensor.dtype}, the model's is {state[name].dtype}; convert the model given "
                f"with .to({tensor.dtype})"
            )
    model.load_state_dict(dict(weights), strict=True)


def _compare(expected: Mapping[str, tuple[int, ...]], actual: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Raise ``CheckpointError`` with the first few names whose shapes differ."""
    wrong = [name for name in dict.fromkeys([*expected, *actual]) if expected.get(name) != actual.get(name)]
    if wrong:
        examples = [f"{n!r} is {_say(actual.get(n))}, expected {_say(expected.get(n))}" for n in wrong[:3]]
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(f"{what}: {'; '.join(examples)}{more}; give the same factory and arguments as exported")


def _say(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else f"of shape {list(shape)}"


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Stored:
    """The checked content of a plan file.

    Attributes:
        dense_shapes: Of every parameter and buffer of the dense model.
        slices: Kept positions by parameter and axis.
        sizes: New values of attributes that hold sizes, by module and attribute.
    """

    dense_shapes: dict[str, tuple[int, ...]]
    slices: dict[str, dict[int, tuple[int, ...]]]
    sizes: dict[str, dict[str, int | list[int]]]

    @classmethod
    def read(cls, content: Any, path: Path) -> _Stored:
        """Check what was read from a file: layout, checksum, types."""
        if not isinstance(content, dict) or "format" not in content or "checksum" not in content:
            raise CheckpointError(f"{path} is not a plan this package wrote; export the model again")
        if content["format"] != FORMAT:
            raise CheckpointError(
                f"{path} has format {content['format']!r}, this version reads {FORMAT}; install the version that "
                "exported it (see manifest.json), or export again"
            )
        body = {key: value for key, value in content.items() if key not in ("format", "checksum")}
        if _checksum(body) != content["checksum"]:
            raise CheckpointError(f"{path} was changed after export (its checksum differs); restore it or export again")
        return cls.parse(body, str(path))

    @classmethod
    def parse(cls, content: Mapping[str, Any], where: str) -> _Stored:
        """Check types and index ranges; the checksum alone would trust whoever can compute one."""
        try:
            shapes = {str(name): _integers(shape) for name, shape in content["dense_shapes"].items()}
            slices = {
                str(name): {int(axis): _integers(kept) for axis, kept in axes.items()}
                for name, axes in content["slices"].items()
            }
            sizes = {
                str(module): {
                    str(name): value if type(value) is int else list(_integers(value)) for name, value in values.items()
                }
                for module, values in content["sizes"].items()
            }
        except (KeyError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where} lacks or garbles an entry ({error!r}); export the model again") from error
        for name, axes in slices.items():
            for axis, kept in axes.items():
                size = shapes[name][axis] if name in shapes and 0 <= axis < len(shapes[name]) else 0
                increasing = all(a < b for a, b in pairwise(kept))
                if not kept or kept[0] < 0 or kept[-1] >= size or not increasing:
                    raise CheckpointError(
                        f"{where}: kept positions of {name!r}, axis {axis}, must increase within 0 to {size - 1}, got "
                        f"{len(kept)} from {kept[:3]} to {kept[-3:]}; export the model again"
                    )
        return cls(shapes, slices, sizes)

    @property
    def pruned_shapes(self) -> dict[str, tuple[int, ...]]:
        """Of every parameter and buffer of the pruned model."""
        return {
            name: tuple(len(self.slices.get(name, {}).get(axis, range(size))) for axis, size in enumerate(shape))
            for name, shape in self.dense_shapes.items()
        }


def _integers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, (list, tuple)) or not all(type(value) is int for value in values):
        raise TypeError(f"expected a list of integers, got {values!r:.60}")
    return tuple(values)
