"""What appears when the pointer rests on a mark: everything about one model, in a few escaped lines."""

from __future__ import annotations

import html
from collections.abc import Iterable

from automl_prune.candidate import Candidate
from automl_prune.report.data import TrialRow
from automl_prune.report.table import FrontRow, criteria_used
from automl_prune.report.words import cost_label, percent, plus_minus, short
from automl_prune.study.record import StudyContext

_MAX_WIDTHS = 80


def safe(text: str) -> str:
    """Plotly reads a few HTML tags in texts; names from a user's model or configuration must not become any."""
    return html.escape(text, quote=False)


def trial_hover(context: StudyContext, row: TrialRow) -> str:
    """A completed trial as the search evaluated it."""
    evaluation = row.trial.evaluation
    if evaluation is None:
        return ""
    lines = [
        f"<b>trial {row.trial.number}</b>, {safe(row.trial.origin)}, {row.status}",
        f"{safe(context.metric.name)} {context.metric.show(evaluation.score.value)} (validation)",
        *(f"{cost_label(n)} {short(c.value)} ({percent(c.ratio)})" for n, c in evaluation.costs.items()),
        f"criterion {safe(criteria_used(evaluation.candidate))}",
        f"widths {_widths(context.group_widths, evaluation.candidate)}",
    ]
    return "<br>".join(lines)


def finalist_hover(context: StudyContext, row: FrontRow) -> str:
    """A finalist with both splits."""
    metric = context.metric
    lines = [
        f"<b>trial {row.trial}</b>, {safe(row.origin)}, {'on the front' if row.on_front else 'dominated'}",
        f"test {safe(metric.name)} {plus_minus(metric, row.test)}" if row.test else "",
        f"validation {safe(metric.name)} {plus_minus(metric, row.val)}, {row.val.seeds} seed(s)",
        *(f"{cost_label(n)} {short(c.value)} ({percent(c.ratio)})" for n, c in row.costs.items()),
        f"criterion {safe(row.criteria)}",
        f"widths {_widths(context.group_widths, row.candidate)}",
    ]
    return "<br>".join(line for line in lines if line)


def _widths(groups: Iterable[str], candidate: Candidate) -> str:
    """Kept widths in network order, in lines of twenty, cut where a tooltip would outgrow the screen."""
    widths = [str(candidate.choices[name].keep) for name in groups if name in candidate.choices]
    shown = widths[:_MAX_WIDTHS]
    lines = [" ".join(shown[start : start + 20]) for start in range(0, len(shown), 20)]
    return "<br>".join(lines) + (" …" if len(widths) > len(shown) else "")


def keep(candidate: Candidate, group: str, dense: int) -> int:
    """Kept width; a group the candidate does not name keeps all its channels."""
    choice = candidate.choices.get(group)
    return choice.keep if choice else dense


def criterion(candidate: Candidate, group: str) -> str:
    """The criterion that chose a group's channels, in words."""
    choice = candidate.choices.get(group)
    return choice.criterion if choice else "none, all channels kept"
