from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_prune import api
from automl_prune.errors import ConfigError, StudyError
from automl_prune.study.runner import read_study, run_study
from automl_prune.study.storage import open_storage
from automl_prune.view import Silent, View
from tests.study.synthetic import evaluate, propose, spec
from tests.views import Recorder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    run_study(replace(spec(4), name="study"), open_storage(None, tmp_path), propose, evaluate)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return int(server.getsockname()[1])


def serve(run_dir: Path, port: int, view: View) -> None:
    """A dashboard in a thread of its own, once it answers."""
    threading.Thread(target=api.dashboard, args=(run_dir,), kwargs={"port": port, "view": view}, daemon=True).start()
    deadline = time.monotonic() + 120
    while True:
        try:
            ask(port, "studies")
            return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def ask(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://localhost:{port}/api/{path}", timeout=60) as answer:
        return dict(json.load(answer))


def attached(port: int) -> dict[str, Any]:
    """The plots of the only study, as the dashboard's page gets them."""
    (study,) = ask(port, "studies")["study_summaries"]
    graphs = ask(port, f"studies/{study['study_id']}?after=0")["plotly_graph_objects"]
    return {graph["id"]: json.loads(graph["graph_object"]) for graph in graphs}


def test_the_dashboard_serves_the_study_on_this_machine(run_dir: Path, port: int) -> None:
    pytest.importorskip("optuna_dashboard")
    view = Recorder()
    serve(run_dir, port, view)
    (study,) = ask(port, "studies")["study_summaries"]
    assert study["study_name"] == "study"
    shown = ask(port, f"studies/{study['study_id']}")["trials"]
    stored = read_study(open_storage(None, run_dir)).trials
    assert [{p["name"]: p["param_external_value"] for p in trial["params"]} for trial in shown] == [
        {name: str(value) for name, value in trial.point.items()} for trial in stored
    ]
    assert view.said[0].startswith(f"http://localhost:{port} ")


def test_the_front_and_its_growth_are_attached_as_they_are_when_it_starts(run_dir: Path, port: int) -> None:
    pytest.importorskip("optuna_dashboard")
    serve(run_dir, port, Silent())
    plots = attached(port)
    assert set(plots) == {"front_search_macs", "history"}
    assert plots["history"]["data"][0]["x"] == [0, 1, 2, 3]
    run_study(replace(spec(7), name="study"), open_storage(None, run_dir), propose, evaluate)
    with socket.create_server(("localhost", 0)) as server:
        other = int(server.getsockname()[1])
    serve(run_dir, other, Silent())
    plots = attached(other)
    assert plots["history"]["data"][0]["x"] == list(range(7))
    marks = [trial for trace in plots["front_search_macs"]["data"] for trial in trace.get("customdata", [])]
    assert sorted(marks) == list(range(7))
    assert "within the budget" in plots["front_search_macs"]["layout"]["title"]["text"]


def test_listening_for_everyone_is_warned_of_and_a_taken_port_is_an_error(run_dir: Path) -> None:
    pytest.importorskip("optuna_dashboard")
    view = Recorder()
    with socket.create_server(("0.0.0.0", 0)) as server:
        taken = server.getsockname()[1]
        with pytest.raises(StudyError, match=f"cannot listen on 0.0.0.0:{taken} .*choose another --port"):
            api.dashboard(run_dir, host="0.0.0.0", port=taken, view=view)
    assert view.said[0].startswith(f"Warning: whoever can reach 0.0.0.0:{taken} can read, change and delete")


def test_without_the_extra_the_message_says_how_to_install_it(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(ConfigError, match=r"pip install 'automl-prune\[dashboard\]'"):
        api.dashboard(run_dir)


def test_a_folder_without_a_study_has_no_dashboard(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        api.dashboard(tmp_path)
