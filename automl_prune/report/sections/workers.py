"""Who worked on what and when, what was lost and tried again, and what failed for which reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import plotly.graph_objects as go

from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import BLUE, GREEN, GREY, ORANGE, style
from automl_prune.report.hover import safe
from automl_prune.report.markup import Cell, Row, figure, missing, number, paragraph, table
from automl_prune.report.words import duration, plural
from automl_prune.study.record import StudyRecord

MOST_WORKERS = 40
"""Lines of the timeline; of more workers, those that did most."""

_MOST_NAMED = 12
_KINDS = {
    "evaluated": (BLUE, "solid", 12),
    "failed": (ORANGE, "solid", 12),
    "lost, until that was noticed": (GREY, "dot", 4),
    "running": (GREEN, "solid", 12),
}


@dataclass(frozen=True, slots=True)
class Span:
    """A worker's time on one trial.

    Attributes:
        trial: Its number.
        worker: ``host:pid``.
        kind: A key of the legend.
        start: Seconds since the study's first start.
        end: The same; of a running trial the last that is known of the study.
        attempt: 1, or more where earlier ones were lost.
    """

    trial: int
    worker: str
    kind: str
    start: float
    end: float
    attempt: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials that failed for one reason."""

    reason: str
    trials: tuple[int, ...]


def render(data: ReportData) -> str:
    """The timeline, and the failures by reason."""
    found = spans(data.record)
    if isinstance(found, Missing):
        return missing(found.reason)
    shown = _busiest(found)
    workers = {span.worker for span in found}
    lost = sum(span.kind.startswith("lost") for span in found)
    retried = {span.trial for span in found if span.attempt > 1}
    caption = (
        f"What {plural(len(workers), 'worker')} did over {duration(max(span.end for span in found))}, a line each: "
        f"{plural(sum(span.kind == 'evaluated' for span in found), 'trial')} evaluated, "
        f"{sum(span.kind == 'failed' for span in found)} failed, {plural(lost, 'attempt')} lost with a worker, "
        f"{plural(len(retried), 'trial')} tried again (triangles)."
    )
    if len(shown) < len(found):
        caption += f" Only the {MOST_WORKERS} workers that did most are drawn."
    return figure("figure-workers", timeline_figure(shown), caption) + _failures_table(data.record)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The timeline."""
    found = spans(data.record)
    return {} if isinstance(found, Missing) else {"workers": timeline_figure(_busiest(found))}


def spans(record: StudyRecord) -> tuple[Span, ...] | Missing:
    """All that is known of who worked when, in order of trial; what has no times or no worker is left out."""
    known = [moment for t in record.trials for moment in (t.started, t.finished) if moment]
    known += [moment for t in record.trials for a in t.lost for moment in (a.started, a.noticed) if moment]
    if not known:
        return Missing("No trial has been started, so nobody has worked yet.")
    origin, last = min(known), max(known)
    kinds = {"complete": "evaluated", "failed": "failed", "running": "running"}
    found = []
    for trial in record.trials:
        attempts = [(a.worker, "lost, until that was noticed", a.started, a.noticed) for a in trial.lost]
        if trial.state in kinds:
            attempts.append((trial.worker, kinds[trial.state], trial.started, trial.finished))
        found += [
            Span(trial.number, worker, kind, *_seconds(origin, start, end or last), attempt)
            for attempt, (worker, kind, start, end) in enumerate(attempts, 1)
            if worker and start
        ]
    return tuple(found) or Missing("The records do not say who worked on the trials.")


def _seconds(origin: datetime, start: datetime, end: datetime) -> tuple[float, float]:
    return (start - origin).total_seconds(), (end - origin).total_seconds()


def _busiest(found: Sequence[Span]) -> tuple[Span, ...]:
    counts: dict[str, int] = {}
    for span in found:
        counts[span.worker] = counts.get(span.worker, 0) + 1
    kept = set(sorted(counts, key=lambda worker: (-counts[worker], worker))[:MOST_WORKERS])
    return tuple(span for span in found if span.worker in kept)


def timeline_figure(found: Sequence[Span]) -> go.Figure:
    """A line per worker in order of first start, a bar per trial; triangles stand where a trial was tried again."""
    unit, seconds = next(
        (unit, size) for unit, size in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if max(span.end for span in found) >= 3 * size or size == 1
    )  # fmt: skip
    workers = list(dict.fromkeys(span.worker for span in sorted(found, key=lambda span: span.start)))
    drawing = go.Figure()
    for kind, (colour, dash, width) in _KINDS.items():
        members = [span for span in found if span.kind == kind]
        if members:
            # One path with gaps for all bars of a kind: thousands of bars of their own would be slow.
            drawing.add_scatter(
                x=_gaps((span.start / seconds, span.end / seconds) for span in members),
                y=_gaps((safe(span.worker), safe(span.worker)) for span in members),
                text=_gaps((_words(span), _words(span)) for span in members),
                mode="lines",
                line={"color": colour, "width": width, "dash": dash},
                name=kind,
                hovertemplate="%{text}<extra></extra>",
            )
    again = [span for span in found if span.attempt > 1]
    crosses = [span for span in found if span.kind == "failed"]
    for name, marked, symbol, colour in (
        ("tried again", again, "triangle-right", GREEN), ("failed here", crosses, "x", ORANGE)
    ):  # fmt: skip
        if marked:
            drawing.add_scatter(
                x=[(span.end if symbol == "x" else span.start) / seconds for span in marked],
                y=[safe(span.worker) for span in marked],
                text=[_words(span) for span in marked],
                mode="markers",
                marker={"symbol": symbol, "size": 11, "color": colour, "line": {"width": 1, "color": "#ffffff"}},
                name=name,
                hovertemplate="%{text}<extra></extra>",
            )
    style(drawing, height=190 + 26 * len(workers))
    drawing.update_xaxes(title=f"{unit} since the first trial started", rangemode="tozero")
    order = [safe(worker) for worker in reversed(workers)]
    drawing.update_yaxes(title=None, type="category", categoryorder="array", categoryarray=order)
    return drawing


def _words(span: Span) -> str:
    again = f", attempt {span.attempt}" if span.attempt > 1 else ""
    return f"trial {span.trial}{again}: {span.kind}, {duration(span.end - span.start)}"


def _gaps(pairs: Iterable[tuple[object, object]]) -> list[object]:
    """Pairs in a row with a gap after each."""
    return [value for first, second in pairs for value in (first, second, None)]


def _failures_table(record: StudyRecord) -> str:
    found = failures(record)
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
