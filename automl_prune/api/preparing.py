"""What commands need of a run directory before they begin: its configuration, and the session of its search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.errors import ConfigError
from automl_prune.files import write_text
from automl_prune.pricing import measuring
from automl_prune.session import Findings, Session, choose_device, known_identity
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import Invitation
from automl_prune.view import View
from automl_prune.yaml_file import to_yaml


def keep_config(directory: RunDirectory, values: Mapping[str, Any]) -> None:
    """Write the resolved configuration of a run directory's search, in the place of one that another command left."""
    write_text(directory.config, to_yaml(values))


def session_in(directory: RunDirectory, config: Config, invitation: Invitation, view: View) -> Session:
    """The session in which a search is continued, with what was computed for it: dense weights, calibration, scores.

    Args:
        directory: Holds these; calibration, scores and latency predictor are made where they are missing.
        config: Of the search, but for its budget.
        invitation: Of the search; what it has found is not found again.
        view: Where progress goes.

    Raises:
        StudyError: Something is not as it was in the search; the message lists it, and nothing was changed.
        CheckpointError: The dense weights are missing or do not fit the model.
        BudgetError: The budget cannot be reached.
    """
    model, task = config.build_model(), config.build_task()
    space, recipe = config.load_space(), config.evaluation.recipe()
    load_weights(model, directory.baseline)
    search = config.search
    invitation.verify(known_identity(model, task, space, recipe, strategy=search.strategy, seed=search.seed))
    session = Session.prepare(
        model,
        task,
        config.parsed_budget(),
        space,
        recipe,
        seed=search.seed,
        device=choose_device(config.device),
        view=view,
        calibration=directory.calibration,
        ranking=directory.scores,
        latency=directory.latency,
        make_meter=measuring(config.latency.settings()),
        findings=Findings.of(invitation),
    )
    invitation.verify({"channel groups": session.graph.digest})
    return session


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse to change what a search was done with when it is continued: only where the data lie, and the device.

    Raises:
        ConfigError: Another key.
    """
    for override in overrides:
        if override.split("=")[0].split(".")[0] not in ("data", "device"):
            raise ConfigError(
                f"--set {override}: only data.* and device may differ from the search; for other settings search again "
                "in another run directory"
            )
