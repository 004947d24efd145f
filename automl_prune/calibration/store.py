"""Calibrations on disk: shared by all workers, rebuilt when they are stale or damaged, never used by mistake."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from automl_prune.calibration.collect import collect, with_gradients
from automl_prune.calibration.statistics import Calibration, CalibrationSettings, LayerStatistics
from automl_prune.errors import CheckpointError
from automl_prune.files import load_tensors, save_tensors, tensors_digest
from automl_prune.tasks.base import Task
from automl_prune.view import Silent, View

FORMAT = "2"
"""Version of the file's layout and of what the statistics mean; another one is stale."""

_TENSORS = ("covariance", "mean", "channel_mean", "channel_variance", "zero_fraction", "taylor")


def load_or_collect(
    path: Path | None,
    model: nn.Module,
    task: Task,
    settings: CalibrationSettings,
    *,
    device: torch.device,
    gradients: bool = False,
    view: View | None = None,
) -> Calibration:
    """The calibration a file holds, if it is of this model, data and settings; else a new one, written there.

    Gradient products that are asked for and absent are collected alone and added to the file.

    Args:
        path: The file; None keeps nothing.
        model: The dense model on ``device``; not changed.
        task: Gives the samples.
        settings: What to collect.
        device: Where to collect.
        gradients: Whether Taylor products are needed.
        view: Where progress and the reason for a rebuild go.

    Raises:
        DataError: The training split has no batch.
        EvaluationError: Activations are not finite, or no gradient can be had.
    """
    view = view or Silent()
    calibration = None
    if path is not None and path.exists():
        try:
            calibration = load(path)
            _check(calibration, model, task, settings)
        except CheckpointError as error:
            calibration = None
            view.say(f"Calibrating anew: {error}")
    changed = calibration is None
    if calibration is None:
        with view.stage("Calibrating") as stage:
            calibration = collect(model, task, settings, device=device, on_step=stage)
    if gradients and not calibration.gradient_samples:
        changed = True
        with view.stage("Calibrating gradients") as stage:
            calibration = with_gradients(calibration, model, task, device=device, on_step=stage)
    if changed and path is not None:
        save(calibration, path)
    return calibration


def save(calibration: Calibration, path: Path) -> None:
    """Write a calibration as safetensors, atomically."""
    tensors = {
        f"{name}|{kind}": getattr(layer, kind).contiguous()
        for name, layer in calibration.layers.items()
        for kind in _TENSORS
        if getattr(layer, kind) is not None
    }
    plain = [field.name for field in fields(LayerStatistics) if field.name not in _TENSORS]
    content = {
        "layers": {name: {key: getattr(layer, key) for key in plain} for name, layer in calibration.layers.items()},
        "settings": asdict(calibration.settings),
        **{key: getattr(calibration, key) for key in ("samples", "gradient_samples", "model", "data")},
    }
    save_tensors(path, tensors, {"format": FORMAT, "calibration": json.dumps(content)})


def load(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        CheckpointError: The file is missing, damaged, or of another version.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path} has format {metadata.get('format')!r}, this version reads {FORMAT!r}")
    try:
        content: Mapping[str, Any] = json.loads(metadata["calibration"])
        layers = {name: _layer(name, values, tensors) for name, values in content["layers"].items()}
        rest = {key: content[key] for key in ("samples", "gradient_samples", "model", "data")}
        return Calibration(layers=layers, settings=CalibrationSettings(**content["settings"]), **rest)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} lacks or garbles an entry ({error!r})") from error


def _layer(name: str, plain: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> LayerStatistics:
    values: dict[str, Any] = {kind: tensors.get(f"{name}|{kind}") for kind in _TENSORS}
    return LayerStatistics(**plain, **values)


def _check(calibration: Calibration, model: nn.Module, task: Task, settings: CalibrationSettings) -> None:
    """Raise unless a calibration is of this model, data and settings."""
    expected = {"model": tensors_digest(model.state_dict()), "data": task.digest, "settings": settings}
    stale = [name for name, value in expected.items() if getattr(calibration, name) != value]
    if stale:
        raise CheckpointError(f"the stored calibration is of other {' and '.join(stale)}")
