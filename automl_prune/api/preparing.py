"""What commands need of a run directory before they begin: its configuration, and the session of its search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.files import write_text
from automl_prune.pricing import measuring
from automl_prune.session import Findings, Session, choose_device
from automl_prune.study.directory import RunDirectory
from automl_prune.view import View
from automl_prune.yaml_file import to_yaml


def keep_config(directory: RunDirectory, values: Mapping[str, Any]) -> None:
    """Write the resolved configuration of a run directory's search, in the place of one that another command left."""
    write_text(directory.config, to_yaml(values))


def session_in(directory: RunDirectory, config: Config, view: View, findings: Findings | None = None) -> Session:
    """The session of a configuration, with the dense weights and whatever was computed that a run directory holds.

    Args:
        directory: Has ``baseline``; calibration, scores and latency predictor are made where they are missing.
        config: Of the search.
        view: Where progress goes.
        findings: What need not be found again.

    Raises:
        CheckpointError: The dense weights are missing or do not fit the model.
        BudgetError: The budget cannot be reached.
    """
    model = config.build_model()
    load_weights(model, directory.baseline)
    return Session.prepare(
        model,
        config.build_task(),
        config.parsed_budget(),
        config.load_space(),
        config.evaluation.recipe(),
        seed=config.search.seed,
        device=choose_device(config.device),
        view=view,
        calibration=directory.calibration,
        ranking=directory.scores,
        latency=directory.latency,
        make_meter=measuring(config.latency.settings()),
        findings=findings,
    )
