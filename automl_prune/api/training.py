"""Train the dense model of a configuration, plainly or with a penalty that empties channels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.dense import train_dense
from automl_prune.errors import ConfigError
from automl_prune.report.scales import ScaleChange, write_scales
from automl_prune.session import choose_device, trace_and_prove
from automl_prune.tasks import Task
from automl_prune.training.sparse import ChannelLasso, Kind, Sparsity
from automl_prune.view import Silent, View

_SCALES = {"bn": "absolute BatchNorm scale of a channel", "kernel": "norm of all weights that compute a channel"}


def train(
    config: Config,
    output: Path | None,
    *,
    sparse: Kind | None = None,
    force: bool = False,
    command: str = "",
    view: View | None = None,
) -> Path:
    """Train the dense model of a configuration and write its weights.

    A sparse training also writes how the channels' scales were distributed before and after, as HTML and JSON beside
    the weights.

    Args:
        config: What to train.
        output: File to write; by default the configuration's ``model.weights``, and with ``sparse`` a file beside it.
        sparse: Penalise the channels' BatchNorm scales (``"bn"``) or all that computes them (``"kernel"``), with
            the strength of ``training.sparse``.
        force: Replace the file when it exists.
        command: Recorded in the file's metadata.
        view: Where progress goes.

    Returns:
        The file.

    Raises:
        ConfigError: The file exists and ``force`` is not given.
        ModelError: Nothing in the model can be penalised.
    """
    dense = Path(config.model.weights) if config.model.weights else Path("runs") / config.name / "baseline.safetensors"
    path = output or (dense.with_name(f"{dense.stem}.sparse-{sparse}.safetensors") if sparse else dense)
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; add --force to train again and replace it, or choose another --output")
    view, task = view or Silent(), config.build_task()
    if sparse is None:
        train_dense(config, task, path, command=command, view=view)
    else:
        _train_sparse(
            config, task, path, Sparsity(sparse, getattr(config.training.sparse, sparse)), dense, command, view
        )
    return path


def _train_sparse(
    config: Config, task: Task, path: Path, sparsity: Sparsity, dense: Path, command: str, view: View
) -> None:
    model, device = config.build_model(), choose_device(config.device)
    steps = config.training.epochs * len(task.batches("train", shuffle=0))
    reach = sparsity.reach(config.training.recipe(), steps)
    view.say(
        f"Penalty {sparsity.strength:g} on {_SCALES[sparsity.kind]}: one that nothing holds shrinks by {reach:.2g} in "
        f"these {steps} steps (training.sparse.{sparsity.kind} sets it)"
    )
    lasso = ChannelLasso(model, trace_and_prove(model.to(device), task, device, view).groups, sparsity)
    train_dense(config, task, path, command=command, view=view, regulariser=lasso)
    start = "before: initial weights"
    if dense.is_file() and dense != path:
        load_weights(model, dense)
        start = "before: trained without the penalty"
    before = _scales(lasso, model)
    load_weights(model, path)
    change = ScaleChange(
        config.name, _SCALES[sparsity.kind], sparsity.strength, start, before, after=_scales(lasso, model)
    )
    page = path.with_name(f"{path.stem}.scales.html")
    write_scales(change, page)
    view.say(f"{change.zeros} of {change.channels} channels are exactly zero; distribution: {page}")


def _scales(lasso: ChannelLasso, model: nn.Module) -> dict[str, tuple[float, ...]]:
    with torch.no_grad():
        found = lasso.scales(dict(model.named_parameters()))
    return {name: tuple(scales.tolist()) for name, scales in found.items()}
