"""optuna-dashboard on a study, an optional extra."""

from __future__ import annotations

import socket
from collections.abc import Container, Mapping
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from automl_prune.errors import ConfigError, StudyError
from automl_prune.study.codec import IDENTITY, POINT, RESULT
from automl_prune.study.distributions import Distributions, space_of, with_parameters
from automl_prune.study.storage import StudyStorage, delegating, quiet


def serve_dashboard(storage: StudyStorage, name: str, figures: Mapping[str, Any], host: str, port: int) -> None:
    """Attach figures to a study and serve optuna-dashboard until it is interrupted.

    Args:
        storage: Of the study.
        name: Of the study in it.
        figures: Plotly's, by name; they take the place of those of an earlier call.
        host: Name or address to listen on.
        port: Likewise.

    Raises:
        ConfigError: optuna-dashboard is not installed.
        StudyError: Nothing can listen there.
    """
    try:
        from optuna_dashboard import run_server, save_plotly_graph_object
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs a package that is not installed ({error}): pip install 'automl-prune[dashboard]'"
        ) from error
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        raise StudyError(f"the dashboard cannot listen on {host}:{port} ({error}); choose another --port") from error
    with quiet():
        study = optuna.load_study(study_name=name, storage=storage.backend)
    for identifier, figure in figures.items():
        save_plotly_graph_object(study, figure, graph_object_id=identifier)
    run_server(_with_parameters(storage.backend), host=host, port=port)


def _with_parameters(storage: BaseStorage) -> BaseStorage:
    """A storage whose trials have parameters and constraints, as the dashboard wants them."""

    def get_all_trials(
        self: object, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        identity = storage.get_study_user_attrs(study_id).get(IDENTITY)
        trials = storage.get_all_trials(study_id, deepcopy=False, states=states)
        return [_shown(trial, space_of(identity)) for trial in trials] if identity else trials

    return delegating("StorageWithParameters", lambda name: getattr(storage, name), get_all_trials=get_all_trials)


def _shown(trial: FrozenTrial, space: Distributions) -> FrozenTrial:
    attributes = {key: value for key, value in trial.user_attrs.items() if key not in (POINT, RESULT)}
    return with_parameters(trial, trial.state, space, attributes)
