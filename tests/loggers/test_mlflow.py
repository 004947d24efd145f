from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from automl_prune.errors import ConfigError, Interrupted
from automl_prune.files import read_json
from automl_prune.loggers import logged
from automl_prune.view import Silent
from tests.loggers.synthetic import NUMBERS, RECORD, SHUFFLED, check, play, play_end

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow 3.17 uses a loader strategy that SQLAlchemy 2.1 warns of
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")
mlflow = pytest.importorskip("mlflow")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an MLflow store, whose tables take seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def _settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's files in an empty folder; what is changed of the process comes back."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "0")
        monkeypatch.delenv(name)
    loggers = {name: logging.getLogger(name) for name in ("mlflow", "alembic")}
    levels = {name: logger.level for name, logger in loggers.items()}
    yield
    for name, level in levels.items():
        loggers[name].setLevel(level)


def client_of(uri: str, experiment: str = "automl-prune") -> tuple[MlflowClient, list[str]]:
    """A client, and the runs of an experiment."""
    client = mlflow.MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    return client, [run.info.run_id for run in client.search_runs([found.experiment_id])]


def series(client: MlflowClient, run_id: str) -> dict[str, list[tuple[int, float]]]:
    names = client.get_run(run_id).data.metrics
    return {name: [(m.step, m.value) for m in client.get_metric_history(run_id, name)] for name in names}


def test_a_search_is_read_back_through_the_client(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "whole")
    with logged(Silent(), [f"mlflow:{database}"], tmp_path / "run") as view:
        play(view, SHUFFLED)
        play_end(view, tmp_path / "run")
    client, (run_id,) = client_of(database, "whole")
    check(series(client, run_id))
    run = client.get_run(run_id)
    assert run.info.run_name == RECORD.context.name
    assert run.info.status == "FINISHED"
    assert run.data.params["config.model.args.num_classes"] == "10"
    assert run.data.params["limit.macs"] == "15618368.0"
    assert run.data.params["environment.torch"] == RECORD.context.environment["torch"]
    assert run.data.tags["baseline.0"] == "uniform l1"
    assert "Trial" in run.data.tags["mlflow.note.content"]
    for name in ("report.html", "summary.md", "front.csv", "front.json"):
        stored = Path(client.download_artifacts(run_id, name))
        assert stored.read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_a_resumed_search_goes_on_with_its_run_and_logs_nothing_twice(database: str, tmp_path: Path) -> None:
    target, run_dir = f"mlflow:{database}", tmp_path / "run"

    def play_until(error: BaseException, order: Sequence[int], earlier: Sequence[int] = ()) -> None:
        with logged(Silent(), [target], run_dir) as view:
            play(view, order, earlier=earlier)
            raise error

    with pytest.raises(Interrupted):
        play_until(Interrupted("stopped"), NUMBERS[:7])
    client, (run_id,) = client_of(database)
    assert client.get_run(run_id).info.status == "KILLED"
    with pytest.raises(ValueError, match="broken"):  # two of the earlier ones were not logged
        play_until(ValueError("broken"), NUMBERS[9:12], NUMBERS[:9])
    assert client.get_run(run_id).info.status == "FAILED"
    for _ in range(2):
        with logged(Silent(), [target], run_dir) as view:
            play(view, (), earlier=NUMBERS)
            assert client.get_run(run_id).info.status == "RUNNING"
            play_end(view, run_dir)
    assert client_of(database)[1] == [run_id]
    check(series(client, run_id))


def test_a_run_that_was_deleted_is_replaced(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "deleted")
    for _ in range(2):
        with logged(Silent(), [f"mlflow:{database}"], tmp_path / "run") as view:
            play(view, NUMBERS[:2])
        client, (run_id,) = client_of(database, "deleted")
        client.delete_run(run_id)
    assert read_json(tmp_path / "run" / "mlflow.json") == {database: run_id}


class Spoken(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def test_a_server_that_is_away_is_one_warning_without_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    spoken = Spoken()
    with logged(spoken, ["mlflow:http://me:secret@127.0.0.1:9"], tmp_path / "run") as view:
        play(view, NUMBERS[:5])
    (warning,) = spoken.said
    assert warning.startswith("Warning: logging to mlflow:http://me@127.0.0.1:9 failed")
    assert "The search goes on" in warning
    assert "secret" not in warning


def test_without_the_extra_the_message_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ConfigError, match=r"pip install 'automl-prune\[mlflow\]'"), logged(Silent(), ["mlflow:x"], "r"):
        pass
