"""Weights put into a model, and a training that goes on to the bit after it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.errors import CheckpointError
from automl_prune.files import load_tensors, save_tensors

_MOMENTUM = "momentum_buffer"


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


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where the state of a training with ``torch.optim.SGD`` is kept (model, momentum, progress), and which it is.

    Random numbers are not part of the state: a training draws them from seeds of its steps or epochs.

    Attributes:
        path: A safetensors file, replaced as a whole.
        identity: What the training depends on, by name, ready for JSON; a checkpoint of another one is refused.
    """

    path: Path
    identity: Mapping[str, Any]

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Mapping[str, Any]) -> None:
        """Write the state; ``progress`` is JSON-ready."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for name, parameter in model.named_parameters():
            buffer = optimizer.state[parameter].get(_MOMENTUM)
            if buffer is not None:
                tensors[f"momentum.{name}"] = buffer
        metadata = {"identity": json.dumps(dict(self.identity)), "progress": json.dumps(dict(progress))}
        save_tensors(self.path, tensors, metadata)

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Put the state back, in place; the progress it was saved with, or None when there is no file.

        Raises:
            CheckpointError: The file is damaged, of another training, or does not fit the model.
        """
        if not self.path.is_file():
            return None
        tensors, metadata = load_tensors(self.path)
        try:
            identity, progress = json.loads(metadata["identity"]), dict(json.loads(metadata["progress"]))
            differing = [key for key, value in _plain(self.identity).items() if identity.get(key) != value]
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{self.path} is no training checkpoint ({error!r}); choose another path") from error
        if differing:
            raise CheckpointError(
                f"{self.path} belongs to another training, with a different {' and '.join(differing)}; delete it to "
                "start again, or restore the old settings to go on"
            )
        state = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path} does not fit the model ({error}); delete it to start again") from error
        for name, parameter in model.named_parameters():
            if f"momentum.{name}" in tensors:
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                optimizer.state[parameter][_MOMENTUM] = buffer
        return progress


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: tuples are lists there."""
    return dict(json.loads(json.dumps(dict(identity))))
