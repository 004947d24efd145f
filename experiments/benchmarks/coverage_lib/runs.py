"""Measurements in processes of their own, one line of JSON each: no crash, hang or leak stops the run."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_prune.channels.provenance import short_path

Report = Callable[[dict[str, Any]], None]
"""Takes new facts; what was reported before a crash or a timeout is kept."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one measurement may use: seconds, bytes of its own memory, threads."""

    seconds: float = 300
    memory: int = 10 * 2**30
    threads: int = 1


class Journal:
    """A file of JSON lines; the last line of a model and tool counts. A torn last line is ignored."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The latest result of every (model, tool)."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.is_file() else []:
            try:
                result = json.loads(line)
            except json.JSONDecodeError:
                continue  # the process died while writing it; it is measured again
            found[result["model"], result["tool"]] = result
        return found

    def append(self, result: dict[str, Any]) -> None:
        """Add one result."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        torn = self.path.is_file() and self.path.stat().st_size and not self.path.read_bytes().endswith(b"\n")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(result) + "\n")


def measured(action: Callable[[Report], None], limits: Limits) -> dict[str, Any]:
    """Run a measurement in a forked process and gather what it reported.

    Forked, because importing torch and the model collections takes longer than many a measurement. This process must
    not have run parallel code before.

    Returns:
        The joined reports; ``status`` is ``done``, ``crash`` or ``timeout`` (``stage`` says where); a crash has
        ``error`` and ``where``.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report"
        path.touch()
        start = time.monotonic()
        process = multiprocessing.get_context("fork").Process(target=_child, args=(action, path, limits))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of any fork beside threads
            process.start()
        try:
            process.join(limits.seconds)
            status = "timeout" if process.is_alive() else "crash" if process.exitcode else "done"
        finally:  # also on Ctrl-C
            process.kill()
            process.join()
        result: dict[str, Any] = {"error": f"exit status {process.exitcode}"} if status == "crash" else {}
        for line in path.read_text(encoding="utf-8").splitlines():
            result |= json.loads(line)
    return result | {"status": status, "seconds": round(time.monotonic() - start, 1)}


def _child(action: Callable[[Report], None], path: Path, limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)  # models and exporters print
    os.dup2(silence, 2)
    import torch

    torch.set_num_threads(limits.threads)
    with path.open("a", encoding="utf-8") as file:

        def report(facts: dict[str, Any]) -> None:
            file.write(json.dumps(facts) + "\n")
            file.flush()

        try:
            action(report)
        except BaseException as error:  # whatever a model or a tool raises is the finding
            frames = traceback.extract_tb(error.__traceback__)
            where = f"{short_path(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
            report({"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", "where": where})
            file.close()
            os._exit(1)
    os._exit(0)
