"""What the search cost, by stage."""

from __future__ import annotations

from dataclasses import dataclass

from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, missing, number, paragraph, table
from automl_prune.report.table import completed
from automl_prune.report.words import duration, plural
from automl_prune.study.record import StudyRecord


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage of the search cost: runs, optimiser steps (None where unknown) and worker seconds."""

    name: str
    runs: int
    steps: int | None
    seconds: float


def render(data: ReportData) -> str:
    """What the search cost, by stage."""
    found = stages(data.record)
    if not found:
        return missing("Nothing has been computed yet.")
    rows = [
        Row([
            Cell(stage.name), number(stage.runs), number(stage.steps),
            number(stage.seconds, duration(stage.seconds)),
            number(stage.seconds / stage.runs, duration(stage.seconds / stage.runs)),
        ])
        for stage in found
    ]  # fmt: skip
    total = f"Together {duration(sum(stage.seconds for stage in found))} of device time, a worker using one device"
    wall = wall_seconds(data.record)
    if wall is not None:
        total += f"; the trials took {duration(wall)} from first start to last end"
    workers = len({evaluation.worker for _, evaluation in completed(data.record)})
    if workers:
        total += f", on {plural(workers, 'worker')}"
    heads = ["stage", "runs", "optimiser steps", "device time", "per run"]
    return table("Costs of the search", heads, rows) + paragraph(f"{total}.")


def stages(record: StudyRecord) -> tuple[Stage, ...]:
    """Trials by rung, failed trials, finalists; those that took place."""
    rungs = [rung for trial, e in completed(record) if trial.reused_from is None for rung in e.rungs]
    failed = [t for t in record.trials if t.state == "failed"]
    lost = sum((t.finished - t.started).total_seconds() for t in failed if t.started and t.finished)
    runs = [run for finalist in record.finalists for run in finalist.runs]
    names = {0: "Trials, no training", 1: "Trials, short fine-tuning"}
    found = [
        Stage(
            names[number],
            sum(rung.rung == number for rung in rungs),
            sum(rung.steps for rung in rungs if rung.rung == number),
            sum(rung.seconds for rung in rungs if rung.rung == number),
        )
        for number in sorted({rung.rung for rung in rungs})
    ]
    if failed:
        found.append(Stage("Failed trials", len(failed), None, lost))
    tried = [e for e in record.sweep.tried if e.val and e.rate != record.sweep.rate] if record.sweep else []
    if tried:
        steps, seconds = sum(entry.steps for entry in tried), sum(entry.seconds for entry in tried)
        found.append(Stage("Learning rates tried and not taken", len(tried), steps, seconds))
    if runs:
        total = Stage(
            "Finalists, long fine-tuning", len(runs), sum(r.steps for r in runs), sum(r.seconds for r in runs)
        )
        found.append(total)
    return tuple(found)


def wall_seconds(record: StudyRecord) -> float | None:
    """From the first trial's start to the last one's end; None before that."""
    starts = [trial.started for trial in record.trials if trial.started]
    ends = [trial.finished for trial in record.trials if trial.finished]
    return (max(ends) - min(starts)).total_seconds() if starts and ends else None
