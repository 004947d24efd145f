"""Set single weights of the dense model to zero, and say what that gives and what it does not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.costs import count_macs
from automl_prune.dense import load_or_train
from automl_prune.errors import CheckpointError, ConfigError
from automl_prune.evaluation import Teacher, finetune, recalibrate, score
from automl_prune.files import save_tensors, tensors_digest, write_json
from automl_prune.seeding import derive_seed
from automl_prune.session import choose_device, environment
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task
from automl_prune.training.unstructured import FileSize, Masking, Sparsified, Stage, all_zeros, masked, permanent, zeros
from automl_prune.view import Silent, View


def sparsify(
    config: Config,
    run_dir: Path,
    masking: Masking,
    *,
    finetune_steps: int = 0,
    force: bool = False,
    command: str = "",
    view: View | None = None,
) -> Sparsified:
    """Mask weights, recalibrate BatchNorm, fine-tune if asked with the masks kept, save, restore and verify.

    Args:
        config: Its dense model, data and fine-tuning.
        run_dir: The result goes there as ``sparse-METHOD-AMOUNT.safetensors``, its numbers beside it as JSON.
        masking: Which weights.
        finetune_steps: Steps of fine-tuning, with the configuration's learning rate and teacher; 0 for none.
        force: Replace the file when it exists.
        command: Recorded in the file's metadata.
        view: Where progress goes.

    Raises:
        ConfigError: The file exists and ``force`` is not given, or the masking cannot be done.
        CheckpointError: The saved file does not restore to the same model.
    """
    view, task, device = view or Silent(), config.build_task(), choose_device(config.device)
    path = run_dir / f"sparse-{masking.method.replace(':', '-')}-{masking.amount:g}.safetensors"
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; add --force to replace it")
    directory = RunDirectory(run_dir)
    dense = load_or_train(config, task, directory.baseline, view).to(device).eval()
    model = masked(dense, masking).to(device)
    stages = [_stage("dense", dense, task, device), _stage("masked", model, task, device)]
    if recalibrate(model, task, samples=config.evaluation.calibration_samples, device=device):
        stages.append(_stage("norms recalibrated", model, task, device))
    if finetune_steps:
        recipe = config.evaluation.finetuning(finetune_steps)
        seed = derive_seed("sparsify", config.search.seed)
        with view.stage("Fine-tuning with the masks kept") as stage:
            finetune(model, task, recipe, seed=seed, device=device, teacher=Teacher(dense), on_step=stage)
        stages.append(_stage(f"fine-tuned {finetune_steps} steps", model, task, device))
    final = permanent(dense, model)
    metadata = {"command": command, "masking": json.dumps(asdict(masking)), "data": task.digest}
    save_tensors(path, final.state_dict(), metadata)
    _verify(path, config.build_model().to(device), final, stages[-1], task, device)
    example = tuple(tensor[:1].to(device) for tensor in task.example_inputs)
    result = Sparsified(
        path=path,
        masking=masking,
        stages=tuple(stages),
        layers=zeros(final, masking.layers),
        parameters=all_zeros(final),
        dense=FileSize.of(directory.baseline),
        sparse=FileSize.of(path),
        macs=(count_macs(dense, example), count_macs(final, example)),
    )
    numbers = asdict(result) | {"path": path.name, "metric": asdict(task.metric), "environment": environment(device)}
    write_json(path.with_suffix(".json"), numbers)
    return result


def _stage(name: str, model: nn.Module, task: Task, device: torch.device) -> Stage:
    return Stage(name, score(model, task, "val", device), score(model, task, "test", device))


def _verify(path: Path, fresh: nn.Module, model: nn.Module, last: Stage, task: Task, device: torch.device) -> None:
    """The file, read into the user's own architecture, must be the same model with the same score."""
    load_weights(fresh, path)
    if tensors_digest(fresh.state_dict()) != tensors_digest(model.state_dict()):
        raise CheckpointError(f"{path} does not restore to the weights that were saved; check the disk, then try again")
    restored = score(fresh, task, "test", device)
    if restored.value != last.test.value:
        show = task.metric.show
        raise CheckpointError(
            f"{path} scores {show(restored.value)} after reload, {show(last.test.value)} before; please report it"
        )
