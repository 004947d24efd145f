"""Real processes for tests, forked from one that has imported everything: a start takes milliseconds."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["tests.study.synthetic"])
PATIENCE = 120


def start(work: Callable[..., None], *arguments: Any, **options: Any) -> BaseProcess:
    process = FORKSERVER.Process(target=work, args=arguments, kwargs=options, daemon=True)
    process.start()
    return process


def wait_until(condition: Callable[[], bool], process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.is_alive(), f"the worker ended with {process.exitcode}"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_for_end(process: BaseProcess, exitcode: int = 0) -> None:
    process.join(PATIENCE)
    assert process.exitcode == exitcode


def kill(process: BaseProcess) -> None:
    process.kill()
    wait_for_end(process, -signal.SIGKILL)
