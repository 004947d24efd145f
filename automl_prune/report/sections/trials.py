"""Every trial, as a table that sorts."""

from __future__ import annotations

from automl_prune.report.cells import cost_cells, trial_cell
from automl_prune.report.data import ReportData, TrialRow
from automl_prune.report.markup import Cell, Row, missing, number, paragraph, table
from automl_prune.report.words import ABSENT, cost_label, duration


def render(data: ReportData) -> str:
    """Every trial, sortable."""
    if not data.trials:
        return missing("No trial has been started.")
    context = data.context
    heads = ["trial", "status", "origin", f"{context.metric.name} (val)", *map(cost_label, context.dense_costs)]
    heads += ["rung", "criterion × groups", "time", "remark"]
    listing = table(
        "Trials", heads, [_trial(data, row) for row in data.trials], sortable=True, tall=len(data.trials) > 20
    )
    note = (
        "Click a column's title to sort; the answer's trial is marked. Scores are on the validation split, before any "
        "finalist's fine-tuning."
    )
    return paragraph(note, "soft noprint") + listing


def _trial(data: ReportData, row: TrialRow) -> Row:
    trial, metric = row.trial, data.context.metric
    evaluation = trial.evaluation
    remark = trial.reason or (f"attempt {trial.attempt}" if trial.attempt > 1 else "")
    cells = [
        trial_cell(trial.number, card=evaluation is not None), Cell(row.status), Cell(trial.origin),
        number(evaluation.score.value, metric.show(evaluation.score.value)) if evaluation else number(None),
        *cost_cells(data, evaluation.costs if evaluation else {}), number(evaluation.rung if evaluation else None),
        Cell(row.criteria or ABSENT, kind="text"), number(row.seconds, _time(row.seconds)), Cell(remark, kind="text"),
    ]  # fmt: skip
    chosen = data.answer.row is not None and data.answer.row.trial == trial.number
    return Row(cells, "chosen" if chosen else "faint" if row.category in (None, "over budget", "other rung") else "")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)
