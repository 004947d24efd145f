"""All completed trials on the validation split."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.report.cells import models_table
from automl_prune.report.data import Category, Missing, ReportData, TrialRow
from automl_prune.report.figures import BLUE, GREY, ORANGE, add_dense, cost_figure, scaled
from automl_prune.report.hover import trial_hover
from automl_prune.report.markup import figure, missing
from automl_prune.report.words import cost_label
from automl_prune.study.record import StudyContext

_MARKS: dict[Category, tuple[str, str, str, int]] = {
    "other rung": ("other rung, not comparable", GREY, "circle-open", 7),
    "over budget": ("over budget", GREY, "x-thin-open", 8),
    "search": ("search", BLUE, "circle-open", 8),
    "baseline": ("baseline", ORANGE, "square-open", 10),
    "front": ("search, on the front", BLUE, "circle", 10),
}


def render(data: ReportData) -> str:
    """All completed trials on the validation split: figure and, without finalists, the front's table."""
    if not any(row.category for row in data.trials):
        return missing("No trial has completed, so there is nothing to draw.")
    counts = {c: sum(row.category == c for row in data.trials) for c in ("front", "baseline", "search", "over budget")}
    context = data.context
    caption = (
        f"Validation {context.metric.name} against {cost_label(context.cost)} of all completed trials, before the "
        f"finalists' longer fine-tuning: {counts['front']} on the front, {counts['search']} further search trials, "
        f"{counts['baseline']} further baselines, {counts['over budget']} over budget."
    )
    if score_view(data) is not None:
        caption += " A few far worse trials lie outside the first view; double-click to see all."
    parts = [figure("figure-search", search_figure(data), caption)]
    if isinstance(data.finalists, Missing) and not isinstance(data.front, Missing):
        parts.append(models_table(data, data.front, "Front of the search"))
    elif isinstance(data.front, Missing):
        parts.append(missing(data.front.reason))
    return "\n".join(parts)


def search_figure(data: ReportData) -> go.Figure:
    """Validation score against cost of every completed trial, with the search's front as a staircase."""
    context = data.context
    figure = cost_figure(context, f"validation {context.metric.name}")
    steps = data.search_front.points
    if steps:
        figure.add_scatter(
            x=[point.cost for point in steps],
            y=[scaled(context, point.score) for point in steps],
            mode="lines",
            line={"color": BLUE, "width": 1.5, "shape": "hv"},
            name="front",
            hoverinfo="skip",
        )
    for category, (name, colour, symbol, size) in _MARKS.items():
        rows = [row for row in data.trials if row.category == category]
        _add_trials(figure, context, [r for r in rows if not _baseline_on_front(r)], (name, colour, symbol, size))
    rows = [row for row in data.trials if _baseline_on_front(row)]
    _add_trials(figure, context, rows, ("baseline, on the front", ORANGE, "square", 11))
    add_dense(figure, context, context.dense_val)
    view = score_view(data)
    if view is not None:
        figure.update_yaxes(range=[scaled(context, bound) for bound in view])
    return figure


def score_view(data: ReportData) -> tuple[float, float] | None:
    """The score axis' first range, when a few collapsed trials would flatten everything else; else None.

    It shows the front, the dense model and the better three quarters of the feasible trials.
    """
    scores = sorted(
        (e.score.value for row in data.trials if row.trial.feasible and (e := row.trial.evaluation)),
        reverse=data.context.metric.higher_is_better,
    )
    must = [point.score for point in data.search_front.points] + [data.context.dense_val.value]
    if len(scores) < 8 or len(must) < 2:
        return None
    shown = must + scores[: 3 * len(scores) // 4]
    low, high = min(shown), max(shown)
    if max(scores) - min(scores) < 3 * (high - low):
        return None
    margin = 0.08 * (high - low)
    return low - margin, high + margin


def _add_trials(
    figure: go.Figure, context: StudyContext, rows: Sequence[TrialRow], mark: tuple[str, str, str, int]
) -> None:
    if not rows:
        return
    name, colour, symbol, size = mark
    evaluations = [evaluation for row in rows if (evaluation := row.trial.evaluation)]
    figure.add_scatter(
        x=[evaluation.costs[context.cost].value for evaluation in evaluations],
        y=[scaled(context, evaluation.score.value) for evaluation in evaluations],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 1.5}},
        name=name,
        text=[trial_hover(context, row) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _baseline_on_front(row: TrialRow) -> bool:
    return row.category == "front" and row.trial.origin != "search"
