"""Exact commands to reproduce, resume and export."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from automl_prune.report.cards import loading, model_command
from automl_prune.report.data import ReportData
from automl_prune.report.markup import command
from automl_prune.report.table import FINALIST_RUNG
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyContext

DATABASE = ("First, since the study lives in a database: where that is", "export AUTOML_PRUNE_STORAGE=URL")
"""Its URL stands in no report: it may hold names that are not to be published."""


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
    export, retarget = model_command(data, "export"), model_command(data, "retarget")
    budget = f"{data.context.cost}={_tighter(data.context)}"
    found = [] if RunDirectory(run_dir).journal.is_file() else [Command(*DATABASE)]
    found += [
        Command("Reproduce in a new run directory", f"automl-prune search {config} --run-dir {again}"),
        Command("Resume, or add trials with a larger --trials", f"automl-prune search {config} --run-dir {place}"),
        Command("Look at the state of the study", f"automl-prune status {place}"),
        Command("Print the front", f"automl-prune front {place}"),
        Command("Rebuild this report; --figures also writes its figures as files", f"automl-prune report {place}"),
        Command("Answer another budget, with finalists of its own", f"{retarget} --budget {budget}"),
        Command("Export the best model within another budget", f"{export} --budget {budget}"),
    ]
    if chosen.row is not None and chosen.kind != "closest":
        number = chosen.row.trial
        found.append(Command("Export the chosen model", f"{export} --trial {number}"))
        if chosen.row.rung == FINALIST_RUNG:
            found += [Command(*line) for line in loading(data, number)]
    return tuple(found)


def _tighter(context: StudyContext) -> str:
    """Four fifths of the budget as a fraction of the dense model, and less than all: this study can answer it."""
    return f"{0.8 * min(1.0, context.limits[context.cost] / context.dense_costs[context.cost]):.2g}"
