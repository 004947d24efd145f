"""The trials, as a table that sorts."""

from __future__ import annotations

from collections.abc import Iterable

from automl_prune.report.cells import cost_cells, trial_cell
from automl_prune.report.data import ReportData, TrialRow
from automl_prune.report.markup import Cell, Row, missing, number, paragraph, table
from automl_prune.report.words import ABSENT, cost_label, duration

MOST_LISTED = 1000
"""Rows of the table: more would make the page slow to open."""


def render(data: ReportData) -> str:
    """Every trial, sortable; of very many those that matter most."""
    if not data.trials:
        return missing("No trial has been started.")
    context = data.context
    rungs = range(1 + max((e.rung for row in data.trials if (e := row.trial.evaluation)), default=0))
    scores = [f"{context.metric.name} (val, rung {rung})" for rung in rungs]
    heads = ["trial", "status", "origin", *scores, *map(cost_label, context.dense_costs)]
    heads += ["criterion × groups", "time", "remark"]
    rows = listed(data)
    tall = len(rows) > 20
    listing = table("Trials", heads, [_trial(data, row, rungs) for row in rows], sortable=True, tall=tall)
    note = (
        "Click a column's title to sort; the answer's trial is marked. Scores are on the validation split, before any "
        "finalist's fine-tuning; rung 0 is without any training, rung 1 after a short one."
    )
    if len(rows) < len(data.trials):
        note += (
            f" Of {len(data.trials)} trials {len(rows)} are listed: the front, the finalists, baselines, failures and "
            "the best of the others; the front's figure holds all that completed."
        )
    left_out = paragraph("The table of trials is left out in print.", "missing printonly") if tall else ""
    return paragraph(note, "soft noprint") + left_out + listing


def listed(data: ReportData) -> list[TrialRow]:
    """The rows of the table, in order of number: all, or the ``MOST_LISTED`` that matter most."""
    if len(data.trials) <= MOST_LISTED:
        return list(data.trials)
    finalists = {finalist.trial for finalist in data.record.finalists}
    sign = -1 if data.context.metric.higher_is_better else 1

    def rank(row: TrialRow) -> tuple[bool, int, float]:
        trial, evaluation = row.trial, row.trial.evaluation
        matters = row.category == "front" or trial.number in finalists or trial.origin != "search"
        if evaluation is None:
            return trial.state != "failed", 0, 0.0
        return not matters, -evaluation.rung, sign * evaluation.score.value

    return sorted(sorted(data.trials, key=rank)[:MOST_LISTED], key=lambda row: row.trial.number)


def _trial(data: ReportData, row: TrialRow, rungs: Iterable[int]) -> Row:
    trial, metric = row.trial, data.context.metric
    evaluation = trial.evaluation
    remark = trial.reason or (f"attempt {trial.attempt}" if trial.attempt > 1 else trial.source or "")
    scores = {rung.rung: rung.score.value for rung in evaluation.rungs} if evaluation else {}
    cells = [
        trial_cell(trial.number, card=evaluation is not None), Cell(row.status), Cell(trial.origin),
        *(number(scores[rung], metric.show(scores[rung])) if rung in scores else number(None) for rung in rungs),
        *cost_cells(data.context.dense_costs, evaluation.costs if evaluation else {}),
        Cell(row.criteria or ABSENT, kind="text"), number(row.seconds, _time(row.seconds)), Cell(remark, kind="text"),
    ]  # fmt: skip
    chosen = data.answer.row is not None and data.answer.row.trial == trial.number
    return Row(cells, "chosen" if chosen else "faint" if row.category in (None, "over budget", "lower rung") else "")


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)
