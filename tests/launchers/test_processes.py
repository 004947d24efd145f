"""Workers as real processes: what they are given, and what becomes of those that die or are interrupted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from automl_prune.errors import StudyError
from automl_prune.launchers import LocalProcesses, cores, threads_each

ROOT = Path(__file__).parents[2]


def run(launcher: LocalProcesses, job: str, folder: Path, **arguments: object) -> list[str]:
    said: list[str] = []
    launcher.run(f"tests.launchers.jobs:{job}", {"folder": str(folder), **arguments}, said.append, lambda: None)
    return sorted(said)


def test_every_worker_gets_its_arguments_its_device_and_its_threads(tmp_path: Path) -> None:
    said = run(LocalProcesses(3, ("cpu", "cuda:1")), "note", tmp_path, secret="hunter2")
    assert said == ["worker 0: done", "worker 1: done", "worker 2: done"]
    facts = [json.loads((tmp_path / f"{number}.json").read_text()) for number in range(3)]
    assert [fact["device"] for fact in facts] == ["cpu", "cuda:1", "cpu"]
    assert {fact["threads"] for fact in facts} == {str(threads_each(3))}
    assert {fact["secret"] for fact in facts} == {"hunter2"}


def test_threads_never_outnumber_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_each(1) == cores()
    assert all(threads_each(n) >= 1 and n * threads_each(n) <= max(n, cores()) for n in range(1, 2 * cores() + 2))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_each(1) == 1
    assert LocalProcesses(2).describe() == f"2 workers with 1 thread each on {cores()} core{'s' * (cores() > 1)}"


def test_a_dead_worker_is_reported_and_replaced(tmp_path: Path) -> None:
    said = run(LocalProcesses(2), "die", tmp_path, times=1)
    assert said == [f"worker {n} was killed (SIGKILL); another takes its place" for n in range(2)]
    assert [(tmp_path / f"deaths-{n}").read_text() for n in range(2)] == ["xx", "xx"]


@pytest.mark.parametrize(("job", "words"), [("die", r"SIGKILL"), ("crash", r"ZeroDivisionError: a mistake")])
def test_workers_that_keep_dying_are_given_up(job: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=rf"every worker died 2 times, .*{words}"):
        run(LocalProcesses(1, replacements=1), job, tmp_path)


def test_an_error_of_one_ends_all_and_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no data here"):
        run(LocalProcesses(2), "fail", tmp_path)
    assert (tmp_path / "interrupted-0").exists()


def test_an_interrupt_lets_every_worker_hand_back(tmp_path: Path) -> None:
    said: list[str] = []

    def tick() -> None:
        if all((tmp_path / f"started-{n}").exists() for n in range(2)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalProcesses(2).run("tests.launchers.jobs:wait", {"folder": str(tmp_path)}, said.append, tick)
    assert sorted(said) == ["worker 0: handed back", "worker 1: handed back"]
    for number in range(2):
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / f"started-{number}").read_text()), 0)


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "from automl_prune.launchers import LocalProcesses\n"
        f"LocalProcesses(1).run('tests.launchers.jobs:wait', {{'folder': {str(tmp_path)!r}}}, print, lambda: None)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _wait_for(tmp_path / "started-0")
    parent.kill()
    parent.wait()
    _wait_for(tmp_path / "interrupted-0")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} never came"
        time.sleep(0.02)
