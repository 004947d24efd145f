"""Real worker processes for tests, forked from one that has imported everything: a start takes milliseconds."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from automl_prune.study.record import StudyRecord
from tests.study.synthetic import work

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.study.synthetic", "tests.killing"])
PATIENCE = 600  # on a machine shared with others, a process may take minutes to start


def start(work: Callable[..., None], *arguments: Any, **options: Any) -> BaseProcess:
    process = FORKSERVER.Process(target=_interruptible, args=(work, *arguments), kwargs=options, daemon=True)
    process.start()
    return process


def _interruptible(work: Callable[..., None], *arguments: Any, **options: Any) -> None:
    # a shell that runs the tests in its background has told them to ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work(*arguments, **options)


def wait_until(condition: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive() or condition(), f"the worker ended with {process.exitcode}"
        assert time.monotonic() < deadline, f"nothing happened for {PATIENCE} s"
        time.sleep(0.01)


def wait_for_end(process: BaseProcess, exitcode: int = 0) -> None:
    process.join(PATIENCE)
    assert process.exitcode == exitcode, f"the worker ended with {process.exitcode} (None: it still runs)"


def kill(process: BaseProcess) -> None:
    process.kill()
    wait_for_end(process, -signal.SIGKILL)


def start_worker(directory: Path, requested: int, **options: Any) -> BaseProcess:
    return start(work, directory, requested, **options)


def lines(directory: Path, kind: str, file: str = "log") -> list[str]:
    path = directory / file
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in found if line.startswith(kind)]


def check_exact(record: StudyRecord, directory: Path, requested: int) -> None:
    """Every requested trial is complete; only a trial whose worker was killed was evaluated again."""
    assert [trial.number for trial in record.trials] == list(range(requested))
    assert {trial.state for trial in record.trials} == {"complete"}
    attempts: Counter[str] = Counter()
    for trial in record.trials:
        if trial.reused_from is None and trial.evaluation:
            attempts[f"end {trial.evaluation.candidate.digest} {trial.evaluation.seed}"] += trial.attempt
    ends = Counter(lines(directory, "end"))
    wrong = {line: (ends[line], attempts[line]) for line in attempts if not 1 <= ends[line] <= attempts[line]}
    assert not wrong, f"evaluations and attempts by candidate: {wrong}"
