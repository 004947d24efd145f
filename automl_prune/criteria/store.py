"""Scores on disk beside the calibration they come from: ordering a large network's channels takes minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from automl_prune.calibration import Calibration
from automl_prune.channels import ChannelGraph
from automl_prune.criteria.base import CriterionContext, criteria, need_of
from automl_prune.criteria.scores import score_groups
from automl_prune.errors import CheckpointError
from automl_prune.files import load_tensors, save_tensors
from automl_prune.view import Silent, View

FORMAT = "1"
"""Version of the file's layout and of what this package's criteria compute; another one is stale."""

Scores = dict[str, dict[str, torch.Tensor]]
"""By criterion and group, shape (width,)."""


def load_or_score(
    path: Path | None,
    graph: ChannelGraph,
    context: CriterionContext,
    names: Sequence[str],
    view: View | None = None,
) -> Scores:
    """Scores of every group by several criteria: those a file holds if they are of this model and calibration.

    Only this package's criteria of statistics are kept on disk: criteria of weights take no time, and a third
    party's code may change without a sign. What is computed is added to the file, atomically, so that workers
    may share it.

    Args:
        path: The file; None keeps nothing.
        graph: Its groups are scored.
        context: The dense model's tensors and calibration.
        names: Registered criteria.
        view: Where progress goes, and what is odd.

    Raises:
        ConfigError: A criterion is unknown, needs what the context lacks, or breaks its contract.
        ModelError: Scores are not finite.
    """
    view = view or Silent()
    kept = _load(path, graph, context, view) if path is not None and path.exists() else {}
    found: Scores = {}
    for name in names:
        if _is_ours(name) and name in kept:
            found[name] = {group.name: kept[name][group.name] for group in graph.groups}
            continue
        with view.stage(f"Ranking channels by {name}") as stage:
            found[name] = score_groups(graph.groups, context, name, on_step=stage)
    new = {name: scores for name, scores in found.items() if _is_ours(name) and name not in kept}
    if path is not None and new:
        together = {**kept, **new}
        tensors = {f"{name}|{group}": t for name, scores in together.items() for group, t in scores.items()}
        save_tensors(path, tensors, {"scores": _identity(graph, context)})
    return found


def _is_ours(name: str) -> bool:
    """Whether a criterion is this package's and costly enough to be kept."""
    criterion = criteria[name]
    return need_of(criterion) != "weights" and criterion.__module__.startswith("automl_prune.")


def _load(path: Path, graph: ChannelGraph, context: CriterionContext, view: View) -> Scores:
    """What a file holds; nothing, and a word about it, when it is damaged or of something else."""
    try:
        tensors, metadata = load_tensors(path)
        if metadata.get("scores") != _identity(graph, context):
            raise CheckpointError(f"{path} is of another model, data or settings")
    except CheckpointError as error:
        view.say(f"Ranking channels anew: {error}")
        return {}
    found: Scores = {}
    for key, tensor in tensors.items():
        name, _, group = key.partition("|")
        found.setdefault(name, {})[group] = tensor
    return {name: scores for name, scores in found.items() if scores.keys() == graph.widths.keys()}


def _identity(graph: ChannelGraph, context: CriterionContext) -> str:
    """What scores depend on, as one line of JSON."""
    calibration: Calibration | None = context.calibration
    facts: Mapping[str, object] = (
        {}
        if calibration is None
        else {
            "model": calibration.model,
            "data": calibration.data,
            "settings": asdict(calibration.settings),
            "samples": calibration.samples,
        }
    )
    return json.dumps({"format": FORMAT, "groups": graph.digest, **facts}, sort_keys=True)
