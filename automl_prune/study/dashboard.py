"""optuna-dashboard on a study, an optional extra."""

from __future__ import annotations

import socket

from automl_prune.errors import ConfigError, StudyError
from automl_prune.study.storage import StudyStorage


def serve_dashboard(storage: StudyStorage, host: str, port: int) -> None:
    """Serve optuna-dashboard until it is interrupted.

    Args:
        storage: Of the study.
        host: Name or address to listen on.
        port: Likewise.

    Raises:
        ConfigError: optuna-dashboard is not installed.
        StudyError: Nothing can listen there.
    """
    try:
        from optuna_dashboard import run_server
    except ImportError as error:
        raise ConfigError(
            f"the dashboard needs a package that is not installed ({error}): pip install 'automl-prune[dashboard]'"
        ) from error
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        raise StudyError(f"the dashboard cannot listen on {host}:{port} ({error}); choose another --port") from error
    run_server(storage.backend, host=host, port=port)
