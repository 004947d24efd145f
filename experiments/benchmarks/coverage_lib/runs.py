"""Measurements in processes of their own, one line of JSON each: no crash, hang or leak stops the run."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
        torn = self.path.is_file() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("\n" if torn else "") + json.dumps(result) + "\n")


def measured(command: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Run a measuring command and gather what it reported.

    Args:
        command: Appends one JSON object per line to the file whose path is added as its last argument.
        limits: What it may use.

    Returns:
        The joined reports; ``status`` is ``done``, ``crash`` or ``timeout`` (``stage`` says where), ``error`` the end of
        what it wrote to standard error when it crashed.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(limits.threads))
    with tempfile.TemporaryDirectory() as folder:
        path, errors = Path(folder) / "report", Path(folder) / "errors"
        start = time.monotonic()
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [*command, str(path)],
                stdout=subprocess.DEVNULL,
                stderr=stream,
                env=environment,
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory)),
            )
            try:
                status = "crash" if process.wait(limits.seconds) else "done"
            except subprocess.TimeoutExpired:
                status = "timeout"
            finally:  # also on Ctrl-C
                process.kill()
                process.wait()
        result: dict[str, Any] = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            result |= json.loads(line)
        result |= {"status": status, "seconds": round(time.monotonic() - start, 1)}
        if status == "crash":
            lines = errors.read_text(errors="replace").strip().splitlines()
            result["error"] = (lines[-1] if lines else f"exit status {process.returncode}")[:300]
            result["where"] = [line.strip() for line in lines if line.strip().startswith("File ")][-1:]
    return result


def command_for(model: str, tool: str, *, onnx: bool) -> list[str]:
    """The command that measures one model."""
    script = Path(__file__).parents[1] / "coverage.py"
    return [sys.executable, str(script), "--measure", model, "--tool", tool, *([] if onnx else ["--no-onnx"]), "--report"]
