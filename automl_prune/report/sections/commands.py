"""Exact commands to reproduce, resume and export."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from automl_prune.report.data import ReportData
from automl_prune.report.markup import command
from automl_prune.report.table import FINALIST_RUNG


@dataclass(frozen=True, slots=True)
class Command:
    """Something to run: what for, and the exact line (shell or Python)."""

    purpose: str
    line: str


def render(data: ReportData) -> str:
    """Exact commands to reproduce, resume and export."""
    lines = (command(entry.purpose, entry.line) for entry in commands(data))
    return "\n".join(lines)


def commands(data: ReportData) -> tuple[Command, ...]:
    """What can be run on this study as it is."""
    run_dir, chosen = data.run_dir, data.answer
    place, config = shlex.quote(str(run_dir)), shlex.quote(str(run_dir / "config.yaml"))
    again = shlex.quote(f"{run_dir}-again")
    found = [
        Command("Reproduce in a new run directory", f"automl-prune search {config} --run-dir {again}"),
        Command("Resume, or add trials with a larger --trials", f"automl-prune search {config} --run-dir {place}"),
        Command("Look at the state of the study", f"automl-prune status {place}"),
        Command("Print the front", f"automl-prune front {place}"),
        Command("Rebuild this report", f"automl-prune report {place}"),
    ]
    if chosen.row is not None and chosen.kind != "closest":
        number = chosen.row.trial
        found.append(Command("Export the chosen model", f"automl-prune export {place} --trial {number}"))
        if chosen.row.rung == FINALIST_RUNG:
            model = data.context.config.get("model")
            factory = model.get("factory") if isinstance(model, Mapping) else None
            folder = json.dumps(str(run_dir / "models" / str(number)))
            line = f"model = automl_prune.load_pruned({folder}, factory())"
            line += f"  # factory: {factory}" if factory else ""
            found.append(Command("Load it in Python, into the dense model's own factory", line))
    return tuple(found)
