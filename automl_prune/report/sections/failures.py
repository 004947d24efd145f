"""Failed trials by reason."""

from __future__ import annotations

from dataclasses import dataclass

from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, number, paragraph, table
from automl_prune.study.record import StudyRecord

_MOST_NAMED = 12


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials that failed for one reason."""

    reason: str
    trials: tuple[int, ...]


def render(data: ReportData) -> str:
    """Failed trials by reason."""
    found = failures(data.record)
    if not found:
        return paragraph("No trial failed.")
    rows = []
    for failure in found:
        named = ", ".join(str(number) for number in failure.trials[:_MOST_NAMED])
        more = len(failure.trials) - _MOST_NAMED
        tail = f" and {more} more" if more > 0 else ""
        rows.append(Row([Cell(failure.reason, kind="text"), number(len(failure.trials)), Cell(named + tail)]))
    return table("Failures", ["reason", "count", "trials"], rows)


def failures(record: StudyRecord) -> tuple[Failure, ...]:
    """By reason, the most frequent first."""
    by_reason: dict[str, list[int]] = {}
    for trial in record.trials:
        if trial.state == "failed":
            by_reason.setdefault(trial.reason or "lost with its worker, no reason recorded", []).append(trial.number)
    found = [Failure(reason, tuple(trials)) for reason, trials in by_reason.items()]
    return tuple(sorted(found, key=lambda failure: (-len(failure.trials), failure.trials)))
