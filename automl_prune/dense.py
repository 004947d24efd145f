"""The dense model of a configuration: loaded from its weights, or trained where there are none."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.errors import CheckpointError
from automl_prune.evaluation import score
from automl_prune.files import save_tensors, tensors_digest
from automl_prune.session import choose_device, environment
from automl_prune.tasks import Task
from automl_prune.training.baseline import EpochReport, Regulariser, train
from automl_prune.view import EpochEnded, View


def load_or_train(config: Config, task: Task, baseline: Path, view: View) -> nn.Module:
    """The dense model a search starts from; ``baseline`` is its copy in the run directory.

    Raises:
        CheckpointError: The configured weights are missing or do not fit, or the run directory has another model.
    """
    model = config.build_model()
    if baseline.is_file():
        metadata = load_weights(model, baseline)
        _check_same(config, task, model, baseline, metadata)
        return model
    if config.model.weights is None:
        train_dense(config, task, baseline, command="trained by the search", view=view)
        load_weights(model, baseline)
        return model
    weights = Path(config.model.weights)
    if not weights.is_file():
        raise CheckpointError(
            f"the dense model's weights {weights} do not exist; train them with 'automl-prune train CONFIG', give "
            "another path as model.weights, or set model.weights to null to train in the run directory"
        )
    metadata = load_weights(model, weights)
    save_tensors(baseline, model.state_dict(), metadata)
    return model


def _check_same(config: Config, task: Task, model: nn.Module, baseline: Path, metadata: Mapping[str, str]) -> None:
    """What a run directory began with must be what the configuration asks for, as far as that can be known here."""
    advice = "give another --run-dir, or delete what is in this one to begin anew"
    if config.model.weights is None:
        differing = [key for key, value in _recipe(config, task, None).items() if metadata.get(key, value) != value]
        if differing:
            raise CheckpointError(
                f"{baseline} was trained with another {' and '.join(differing)} than the configuration has; {advice}"
            )
    elif (weights := Path(config.model.weights)).is_file():  # where the directory was copied to they may be missing
        given = config.build_model()
        load_weights(given, weights)
        if tensors_digest(given.state_dict()) != tensors_digest(model.state_dict()):
            raise CheckpointError(f"{baseline} holds another model than model.weights ({weights}) does; {advice}")


def train_dense(
    config: Config, task: Task, output: Path, *, command: str, view: View, regulariser: Regulariser | None = None
) -> None:
    """Train the configured model and write its weights, with what made them as metadata.

    A checkpoint beside ``output`` is written after every epoch, read when it exists, and removed at the end.
    """
    device = choose_device(config.device)
    start = time.perf_counter()
    checkpoint = output.with_name(f"{output.stem}.training.safetensors")
    if checkpoint.is_file():
        view.say(f"Resuming the training in {checkpoint}")

    def on_epoch(report: EpochReport) -> None:
        val = task.metric.show(report.val.value)
        view.say(f"Epoch {report.epoch}/{config.training.epochs}: loss {report.loss:.4f}, validation {val}")
        view.tell(EpochEnded(report.epoch, config.training.epochs, report.loss, report.val.value))

    with view.stage("Training the dense model") as stage:
        model = train(
            config.build_model(),
            task,
            config.training.recipe(),
            seed=config.search.seed,
            device=device,
            regulariser=regulariser,
            checkpoint=checkpoint,
            on_step=stage,
            on_epoch=on_epoch,
        )
    val, test = score(model, task, "val", device), score(model, task, "test", device)
    metadata = {
        "command": command,
        **_recipe(config, task, regulariser),
        "val": repr(val.value),
        "test": repr(test.value),
        "seconds": f"{time.perf_counter() - start:.0f}",
        "torch": torch.__version__,
        "device": environment(device)["processor"],
    }
    save_tensors(output, model.state_dict(), metadata)
    checkpoint.unlink(missing_ok=True)
    show = task.metric.show
    view.say(f"{task.metric.name}: {show(val.value)} validation, {show(test.value)} test; wrote {output}")


def _recipe(config: Config, task: Task, regulariser: Regulariser | None) -> dict[str, str]:
    """What a training depends on, as metadata of the weights."""
    return {
        "seed": str(config.search.seed),
        "training": config.training.model_dump_json(),
        "regulariser": json.dumps(dict(regulariser.identity) if regulariser else None),
        "data": task.digest,
        "metric": task.metric.name,
    }
