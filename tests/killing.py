"""The real command in a process of its own, which kills itself at a chosen moment of its run."""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from automl_prune import cli
from automl_prune.evaluation import Evaluator, finetune
from automl_prune.study.journal import JournalFile

Stage = Callable[[], None]
"""Arranges that this process ends when it comes to a certain point."""


def _end(number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


def _naming(verb: str, pattern: str, count: int = 1) -> Stage:
    """Killed when a file (or a directory of ``models``) is complete and about to get its name, for the n-th time."""

    def arrange() -> None:
        name, left = getattr(Path, verb), [count]

        def killing(self: Path, target: Path) -> Path:
            if fnmatch.fnmatch(f"{Path(target).parent.name}/{Path(target).name}", pattern):
                left[0] -= 1
                if not left[0]:
                    _end()
            named: Path = name(self, target)
            return named

        setattr(Path, verb, killing)

    return arrange


def _evaluating() -> None:
    """Killed in the second evaluation, when its model is pruned and reconstructed."""
    compress, left = Evaluator.compress, [2]

    def killing(self: Evaluator, *arguments: Any) -> Any:
        made = compress(self, *arguments)
        left[0] -= 1
        if not left[0]:
            _end()
        return made

    Evaluator.compress = killing  # type: ignore[assignment,method-assign]  # the process is ours


def _telling() -> None:
    """Killed when half of the record that completes the third trial is written."""
    append, left = JournalFile.append_logs, [3]

    def killing(self: JournalFile, logs: list[dict[str, Any]]) -> None:
        if any(log.get("values") for log in logs):
            left[0] -= 1
            if not left[0]:
                with self.locked() as descriptor:
                    line = json.dumps(logs[0])
                    os.write(descriptor, line[: len(line) // 2].encode())
                    _end()
        append(self, logs)

    JournalFile.append_logs = killing  # type: ignore[method-assign]  # the process is ours


def _finetuning() -> None:
    """Killed when a finalist's fifth checkpoint is about to get its name; one is written after every step."""
    assert finetune.__kwdefaults__
    finetune.__kwdefaults__["every"] = 0.0
    _naming("replace", ".finalists/*.training.safetensors", 5)()


def _asked_to_stop() -> None:
    """Sent SIGTERM, as by a machine that is about to be taken away, when a finalist's fifth step is done."""
    run = finetune.__globals__["_Run"]
    steps = run.steps

    def noticed(self: Any, on_step: Any) -> Iterator[int]:
        for done in steps(self, on_step):
            if done == 5:  # no candidate has so many
                _end(signal.SIGTERM)
            yield done

    run.steps = noticed


STAGES: dict[str, Stage] = {
    "training": _naming("replace", "*/baseline.training.safetensors", 2),
    "calibrating": _naming("replace", "*/calibration.safetensors"),
    "ranking": _naming("replace", "*/scores.safetensors"),
    "evaluating": _evaluating,
    "telling": _telling,
    "fine-tuning": _finetuning,
    "asked to stop": _asked_to_stop,
    "finalist": _naming("replace", ".finalists/*-1.safetensors"),
    "exporting": _naming("rename", "models/*"),
    "table": _naming("replace", "*/front.json"),
    "report": _naming("replace", "*/report.html"),
}


def run(arguments: list[str], log: Path, stage: str | None = None) -> None:
    """Run the command line in this process, which is the caller's to end."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["automl-prune", *arguments]
    if stage is not None:
        STAGES[stage]()
    cli.main()
