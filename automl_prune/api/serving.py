"""optuna-dashboard on the study of a run directory."""

from __future__ import annotations

from pathlib import Path

from automl_prune.api.reading import open_study, read
from automl_prune.report import dashboard_figures
from automl_prune.study.dashboard import serve_dashboard
from automl_prune.view import Silent, View

LOCAL = ("localhost", "127.0.0.1", "::1")


def dashboard(
    run_dir: Path,
    *,
    host: str = "localhost",
    port: int = 8080,
    storage: str | None = None,
    view: View | None = None,
) -> None:
    """Serve optuna-dashboard on a study until it is interrupted, with the report's front and its growth attached.

    The attached plots are of the study as it is now; those that are there already are replaced.

    Args:
        run_dir: Of the search.
        host: Where to listen; anything but this machine's own name lets others change and delete the study.
        port: Likewise.
        storage: URL of the study's database, if it is not in the run directory.
        view: Where messages go.

    Raises:
        StudyError: There is no study, or nothing can listen there.
        ConfigError: optuna-dashboard is not installed.
    """
    view = view or Silent()
    record = read(run_dir, storage)
    if host not in LOCAL:
        view.say(
            f"Warning: whoever can reach {host}:{port} can read, change and delete this study; there is no password. "
            "Use the default host and an SSH tunnel where you can"
        )
    view.say(
        f"http://{host}:{port}  (stop with Ctrl-C; it does not know budgets: report.html has the front within them)"
    )
    with open_study(run_dir, storage) as (opened, name):
        serve_dashboard(opened, name, dashboard_figures(record, run_dir), host, port)
