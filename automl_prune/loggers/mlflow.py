"""A search as a run of MLflow's."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from automl_prune.errors import ConfigError
from automl_prune.files import read_json, write_json
from automl_prune.loggers.base import Logger, Outcome, Row
from automl_prune.redaction import without_secrets
from automl_prune.study.directory import RunDirectory
from automl_prune.view import SearchEnded, SearchStarted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

EXPERIMENT = "automl-prune"
"""Where runs go unless ``MLFLOW_EXPERIMENT_NAME`` says otherwise."""

_MANNERS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # nothing is told to anyone but the server that was named
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # a search waits some seconds for a server that is away, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""What MLflow does here unless the environment says otherwise."""

_PARAMS, _METRICS = 100, 1000
"""What the server takes in one request."""
_STATUS: Mapping[Outcome, str] = {"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

T = TypeVar("T")


def open_mlflow(uri: str, directory: RunDirectory) -> Logger:
    """A logger to a tracking server (``http://...``), a database (``sqlite:///...``) or whatever else MLflow knows.

    Raises:
        ConfigError: MLflow is not installed.
    """
    for name, value in _MANNERS.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow.tracking
    except ImportError as error:
        raise ConfigError(
            f"--log mlflow needs a package that is not installed ({error}): pip install 'automl-prune[mlflow]'"
        ) from error
    for name in ("mlflow", "alembic"):  # which make the tables of a new database
        logging.getLogger(name).setLevel(logging.WARNING)
    return _Mlflow(mlflow.tracking.MlflowClient, uri, directory)


class _Mlflow:
    """One run per search; a search that is resumed goes on with its run, which ``mlflow.json`` names by server."""

    def __init__(self, connect: type[MlflowClient], uri: str, directory: RunDirectory) -> None:
        self._connect, self._uri, self._directory = connect, uri, directory
        self._run: str | None = None
        self._known: dict[str, set[int]] = {}

    def start(self, study: SearchStarted) -> None:
        from mlflow.entities import Param

        self._client = self._connect(self._uri)
        run = self._resumed() or self._created(study.study)
        self._run = run.info.run_id
        self._known = {
            name: {metric.step for metric in self._client.get_metric_history(self._run, name)}
            for name in run.data.metrics
        }
        params = {
            **_flat(study.config, "config"),
            **_flat(study.limits, "limit"),
            **_flat(study.environment, "environment"),
        }
        new = [Param(name, str(value)) for name, value in params.items() if name not in run.data.params]
        for some in _batches(new, _PARAMS):
            self._client.log_batch(self._run, params=some)

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric, RunTag

        if self._run is None:
            return
        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, row.step)
            for row in rows
            for name, value in row.values.items()
            if row.step not in self._known.get(name, ())
        ]
        tags = [
            RunTag(f"baseline.{row.step}", row.origin) for row in rows if row.origin and "trial/baseline" in row.values
        ]
        for some in _batches(metrics, _METRICS):
            self._client.log_batch(self._run, metrics=some)
        for named in _batches(tags, _PARAMS):
            self._client.log_batch(self._run, tags=named)

    def finish(self, result: SearchEnded) -> None:
        if self._run is None:
            return
        self._client.set_tag(self._run, "mlflow.note.content", result.verdict)
        directory = self._directory
        for path in (directory.report, directory.summary, directory.front_csv, directory.front_json):
            self._client.log_artifact(self._run, str(path))

    def close(self, outcome: Outcome) -> None:
        if self._run is not None:
            self._client.set_terminated(self._run, status=_STATUS[outcome])

    @property
    def _server(self) -> str:
        return without_secrets(self._uri)

    def _memory(self) -> dict[str, str]:
        path = self._directory.mlflow
        return dict(read_json(path)) if path.is_file() else {}

    def _resumed(self) -> Run | None:
        """The run of an earlier session; None when there was none, or it has been deleted."""
        from mlflow.exceptions import MlflowException

        run_id = self._memory().get(self._server)
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if run.info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(run_id, status="RUNNING")
        return run

    def _created(self, name: str) -> Run:
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        experiment = self._client.get_experiment_by_name(title)
        number = experiment.experiment_id if experiment else self._client.create_experiment(title)
        run = self._client.create_run(number, run_name=name)
        write_json(self._directory.mlflow, {**self._memory(), self._server: run.info.run_id})
        return run


def _flat(value: Any, name: str) -> dict[str, Any]:
    """Nested mappings as one, their keys joined by dots."""
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: item for inner, at in value.items() for key, item in _flat(at, f"{name}.{inner}").items()}


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
