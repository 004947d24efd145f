"""The front's figures: a score against one of the costs, for the finalists and for all trials.

Marks carry the number of their trial; the page's script opens its card.
"""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.report.data import ReportData, TrialRow
from automl_prune.report.estimate import Estimate
from automl_prune.report.figures import BLUE, GREEN, GREY, ORANGE, YELLOW, scaled, style
from automl_prune.report.hover import safe
from automl_prune.report.table import FINALIST_RUNG, FrontRow, search_points
from automl_prune.report.words import cost_quantity, cost_title, cost_unit, cost_value, percent, plus_minus
from automl_prune.study.record import StudyContext
from automl_prune.tasks.base import Score

Mark = tuple[str, str, str, int]
"""What the legend says, colour, symbol, size. No two marks share a symbol: colour alone tells nothing apart."""

_LOWER: Mark = ("stayed at a lower rung, not comparable", GREY, "triangle-down-open", 7)
_OVER: Mark = ("over budget", GREY, "x-thin-open", 8)
_SEARCH: Mark = ("search", BLUE, "circle-open", 8)
_BASELINE: Mark = ("baseline", ORANGE, "square-open", 9)
_SEARCH_ON_FRONT: Mark = ("search, on the front", BLUE, "circle", 10)
_BASELINE_ON_FRONT: Mark = ("baseline, on the front", ORANGE, "square", 10)


def finalists_figure(data: ReportData, rows: Sequence[FrontRow], cost: str) -> go.Figure:
    """Test score against a cost of the fine-tuned finalists with 95 % intervals, the dense model and the budget.

    Args:
        data: Of the report.
        rows: Finalists; those whose cost is unknown are left out.
        cost: Name of the metric on the other axis. The front is that of this cost, chosen on validation.
    """
    context, rows = data.context, sorted((r for r in rows if cost in r.costs), key=lambda r: r.costs[cost].value)
    front = finalists_front(data, rows, cost)
    figure = _cost_figure(context, cost, f"test {context.metric.name}")
    figure.add_scatter(
        x=[row.costs[cost].value for row in rows if row.trial in front.trials],
        y=[scaled(context, row.test.value) for row in rows if row.trial in front.trials and row.test],
        mode="lines",
        line={"color": BLUE, "width": 1.5, "dash": "dot"},
        name="front (chosen on validation)",
        hoverinfo="skip",
    )
    for baseline, on_front, mark in (
        (False, False, ("search, dominated", *_SEARCH[1:])),
        (True, False, ("baseline, dominated", *_BASELINE[1:])),
        (False, True, _SEARCH_ON_FRONT),
        (True, True, _BASELINE_ON_FRONT),
    ):
        members = [r for r in rows if r.is_baseline == baseline and (r.trial in front.trials) == on_front and r.test]
        tests = [row.test for row in members if row.test]
        _add_marks(figure, context, cost, mark, [(r.trial, r.costs[cost].value) for r in members], tests, bars=True)
    _add_dense(figure, context, cost, context.dense_test)
    figure.add_hline(y=scaled(context, context.dense_test.value), line={"color": GREEN, "width": 1.5, "dash": "dot"})
    costs = [row.costs[cost].value for row in rows]
    if costs:
        right = max([*costs, context.limits.get(cost, 0.0)])
        margin = max(0.08 * (right - min(costs)), 0.02 * right)
        figure.update_xaxes(range=[min(costs) - margin, right + margin])
    return _with_ring(figure)


def finalists_front(data: ReportData, rows: Sequence[FrontRow], cost: str) -> ParetoFront:
    """Which finalists are on the front of one cost, by validation score."""
    points = [FrontPoint(r.trial, r.val.value, r.costs[cost].value, True, FINALIST_RUNG) for r in rows]
    return ParetoFront.of(points, higher_is_better=data.context.metric.higher_is_better)


def search_figure(data: ReportData, cost: str) -> go.Figure:
    """Validation score against a cost of every completed trial, with the front of this cost as a staircase."""
    context = data.context
    figure = _cost_figure(context, cost, f"validation {context.metric.name}")
    front = ParetoFront.of(search_points(data.record, cost), higher_is_better=context.metric.higher_is_better)
    if front.points:
        figure.add_scatter(
            x=[point.cost for point in front.points],
            y=[scaled(context, point.score) for point in front.points],
            mode="lines",
            line={"color": BLUE, "width": 1.5, "shape": "hv"},
            name="front",
            hoverinfo="skip",
        )
    members: dict[Mark, list[TrialRow]] = {}
    for row in data.trials:
        if row.trial.evaluation is not None and cost in row.trial.evaluation.costs:
            members.setdefault(_mark(row, front), []).append(row)
    for mark in (_LOWER, _OVER, _SEARCH, _BASELINE, _SEARCH_ON_FRONT, _BASELINE_ON_FRONT):
        evaluations = [(r.trial.number, e) for r in members.get(mark, []) if (e := r.trial.evaluation)]
        _add_marks(
            figure, context, cost, mark, [(number, e.costs[cost].value) for number, e in evaluations],
            [Estimate.of([e.score]) for _, e in evaluations], bars=mark in (_SEARCH_ON_FRONT, _BASELINE_ON_FRONT),
        )  # fmt: skip
    _add_dense(figure, context, cost, context.dense_val)
    view = score_view(data)
    if view is not None:
        figure.update_yaxes(range=[scaled(context, bound) for bound in view])
    return _with_ring(figure)


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


def _mark(row: TrialRow, front: ParetoFront) -> Mark:
    if row.category == "over budget":
        return _OVER
    if row.category == "lower rung":
        return _LOWER
    baseline = row.trial.origin != "search"
    if row.trial.number in front.trials:
        return _BASELINE_ON_FRONT if baseline else _SEARCH_ON_FRONT
    return _BASELINE if baseline else _SEARCH


def _add_marks(
    figure: go.Figure, context: StudyContext, cost: str, mark: Mark, at: Sequence[tuple[int, float]],
    scores: Sequence[Estimate], *, bars: bool,
) -> None:  # fmt: skip
    """One trace: ``at`` holds pairs (trial, cost), ``scores`` what they scored."""
    if not at:
        return
    name, colour, symbol, size = mark
    percent_sign = " %" if context.metric.percent else ""
    figure.add_scatter(
        x=[value for _, value in at],
        y=[scaled(context, score.value) for score in scores],
        error_y=_error_bars(context, scores, colour) if bars else None,
        customdata=[trial for trial, _ in at],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 1.5}},
        name=name,
        hovertemplate=f"<b>trial %{{customdata}}</b>, {name}<br>%{{y:.4~g}}{percent_sign}"
        f"<br>%{{x:.4~s}} {safe(cost_unit(cost))}<extra></extra>",
    )


def _add_dense(figure: go.Figure, context: StudyContext, cost: str, score: Score) -> None:
    value, estimate = context.dense_costs[cost], Estimate.of([score])
    figure.add_scatter(
        x=[value],
        y=[scaled(context, score.value)],
        error_y=_error_bars(context, [estimate], GREEN),
        mode="markers",
        marker={"color": GREEN, "symbol": "star", "size": 15},
        name="dense model",
        text=[f"dense model<br>{plus_minus(context.metric, estimate)}<br>{safe(cost_quantity(cost, value))}"],
        hovertemplate="%{text}<extra></extra>",
    )


def _with_ring(figure: go.Figure) -> go.Figure:
    """The figure with one trace more, empty: the page's script puts it around the selected model."""
    figure.add_scatter(
        x=[], y=[], mode="markers", name="selected", hoverinfo="skip",
        marker={"symbol": "circle-open", "size": 20, "color": YELLOW, "line": {"width": 3, "color": YELLOW}},
    )  # fmt: skip
    return figure


def _error_bars(context: StudyContext, estimates: Sequence[Estimate], colour: str) -> dict[str, object]:
    """95 % intervals; an estimate without one has no bar."""
    margins = [None if e.margin is None else scaled(context, e.margin) for e in estimates]
    return {"type": "data", "array": margins, "color": colour, "thickness": 1.5, "width": 5}


def _cost_figure(context: StudyContext, cost: str, score_title: str) -> go.Figure:
    """An empty figure of a score against a cost, with the budget's line where the cost has one."""
    figure = go.Figure()
    style(figure, height=500)
    unit = cost_unit(cost)
    figure.update_xaxes(title=safe(f"{cost_title(cost)}{f' [{unit}]' if unit else ''}"), tickformat="~s")
    direction = "higher" if context.metric.higher_is_better else "lower"
    percent_sign = " [%]" if context.metric.percent else ""
    figure.update_yaxes(title=safe(f"{score_title}{percent_sign} ({direction} is better)"))
    if cost in context.limits:
        limit = context.limits[cost]
        figure.add_vline(x=limit, line={"color": ORANGE, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=limit, y=0.01, yref="paper", xanchor="right", yanchor="bottom", showarrow=False,
            text=f"budget {cost_value(cost, limit)} ({percent(limit / context.dense_costs[cost])})",
        )  # fmt: skip
    return figure
