"""The storage proxy: a study through it, where it listens, and what it says about that."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from automl_prune.errors import StudyError
from automl_prune.study import serving
from automl_prune.study.runner import read_study, run_study
from automl_prune.study.serving import is_loopback, serve
from automl_prune.study.storage import open_storage
from tests.study.synthetic import evaluate, outcome, propose, spec

ROOT = Path(__file__).parents[2]


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return int(found.getsockname()[1])


def _proxy(url: str, port: int) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "automl_prune", "storage-proxy", "--storage", url, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("Serving"):
        assert process.poll() is None
    return process


def test_a_study_through_the_proxy_is_the_study_in_the_database(tmp_path: Path) -> None:
    url, port = f"sqlite:///{tmp_path / 'study.db'}", _free_port()
    process = _proxy(url, port)
    try:
        behind = run_study(spec(8), open_storage(f"grpc://localhost:{port}", tmp_path), propose, evaluate)
        assert outcome(behind) == outcome(run_study(spec(8), open_storage(None, tmp_path), propose, evaluate))
        assert outcome(read_study(open_storage(url, tmp_path))) == outcome(behind)
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130


def test_a_restarted_proxy_is_waited_for(tmp_path: Path) -> None:
    url, port = f"sqlite:///{tmp_path / 'study.db'}", _free_port()
    processes = [_proxy(url, port)]
    storage = open_storage(f"grpc://localhost:{port}", tmp_path)
    run_study(spec(3), storage, propose, evaluate)
    processes[0].kill()
    processes[0].communicate()
    processes.append(_proxy(url, port))
    try:
        record = run_study(spec(6), storage, propose, evaluate)
        assert [trial.state for trial in record.trials] == ["complete"] * 6
    finally:
        processes[1].kill()
        processes[1].communicate()


@pytest.mark.parametrize(
    ("host", "own"),
    [("localhost", True), ("127.0.0.1", True), ("[::1]", True), ("0.0.0.0", False), ("::", False), ("db.lan", False)],
)
def test_only_other_addresses_than_ones_own_are_warned_of(
    host: str, own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    heard: dict[str, object] = {}
    url = f"sqlite:///{tmp_path / 'study.db'}"
    monkeypatch.setattr(serving, "_check_free", lambda host, port: None)  # db.lan is not this machine
    serve(url, host, 13000, say=said.append, run=lambda backend, **options: heard.update(options))
    assert is_loopback(host) == own
    assert heard["host"] == host
    assert any(text.startswith("Warning") and "no password" in text for text in said) != own
    assert said[-1].endswith(f"--storage grpc://{host}:13000")


def test_what_cannot_be_served_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is a proxy already"):
        serve("grpc://localhost:13000", "localhost", 13000, say=print)
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StudyError, match="cannot be listened on"):
            serve(f"sqlite:///{tmp_path / 'study.db'}", "localhost", port, say=lambda text: None)


@pytest.mark.parametrize("url", ["grpc:localhost", "grpc://localhost", "grpc://me:secret@host:1", "grpc://host:x"])
def test_malformed_urls_are_refused_without_being_shown(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"not of the form grpc://host:port") as caught:
        open_storage(url, tmp_path)
    assert "secret" not in str(caught.value)
