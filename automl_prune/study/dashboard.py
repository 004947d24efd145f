"""optuna-dashboard on a study, an optional extra."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import optuna

from automl_prune.errors import ConfigError, StudyError
from automl_prune.study.storage import StudyStorage, quiet


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
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise StudyError(f"the dashboard cannot listen on {host}:{port} ({error}); choose another --port") from error
    with quiet():
        study = optuna.load_study(study_name=name, storage=storage.backend)
    for identifier, figure in figures.items():
        save_plotly_graph_object(study, figure, graph_object_id=identifier)
    run_server(storage.backend, host=host, port=port)
