"""The report's figures in plotly, drawn from collected data; colours of text and lines are left to the page's style."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.report.data import Category, History, ReportData, TrialRow
from automl_prune.report.estimate import Estimate
from automl_prune.report.hover import criterion, finalist_hover, keep, safe, trial_hover
from automl_prune.report.table import FrontRow
from automl_prune.report.words import cost_title, cost_unit, percent, plus_minus, short
from automl_prune.study.record import StudyContext
from automl_prune.tasks.base import Score

# Okabe and Ito's palette, those of its colours that stand out on white and on near-black alike; each also has a shape.
BLUE, ORANGE, GREEN, GREY = "#2f86c9", "#d55e00", "#009e73", "#8a919c"
_MARKS: dict[Category, tuple[str, str, str, int]] = {
    "other rung": ("other rung, not comparable", GREY, "circle-open", 7),
    "over budget": ("over budget", GREY, "x-thin-open", 8),
    "search": ("search", BLUE, "circle-open", 8),
    "baseline": ("baseline", ORANGE, "square-open", 10),
    "front": ("search, on the front", BLUE, "circle", 10),
}


def finalists_figure(data: ReportData, rows: Sequence[FrontRow]) -> go.Figure:
    """Test score against cost of the fine-tuned finalists with 95 % intervals, the dense model and the budget."""
    context = data.context
    figure = _cost_figure(context, f"test {context.metric.name}")
    chosen = [row for row in rows if row.on_front]
    figure.add_scatter(
        x=[row.costs[context.cost].value for row in chosen],
        y=[_scaled(context, row.test.value) for row in chosen if row.test],
        mode="lines",
        line={"color": BLUE, "width": 1.5, "dash": "dot"},
        name="front (chosen on validation)",
        hoverinfo="skip",
    )
    groups = (
        ("finalist from the search", BLUE, "circle", [row for row in rows if not row.is_baseline]),
        ("finalist, baseline", ORANGE, "square", [row for row in rows if row.is_baseline]),
    )
    for name, colour, symbol, members in groups:
        if members:
            _add_finalists(figure, context, members, name, colour, symbol)
    _add_dense(figure, context, context.dense_test)
    figure.add_hline(y=_scaled(context, context.dense_test.value), line={"color": GREEN, "width": 1.5, "dash": "dot"})
    costs = [row.costs[context.cost].value for row in rows]
    right = max([*costs, context.limits.get(context.cost, 0.0)])
    margin = max(0.08 * (right - min(costs)), 0.02 * right)
    figure.update_xaxes(range=[min(costs) - margin, right + margin])
    return figure


def search_figure(data: ReportData) -> go.Figure:
    """Validation score against cost of every completed trial, with the search's front as a staircase."""
    context = data.context
    figure = _cost_figure(context, f"validation {context.metric.name}")
    steps = data.search_front.points
    if steps:
        figure.add_scatter(
            x=[point.cost for point in steps],
            y=[_scaled(context, point.score) for point in steps],
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
    _add_dense(figure, context, context.dense_val)
    view = score_view(data)
    if view is not None:
        figure.update_yaxes(range=[_scaled(context, bound) for bound in view])
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


def widths_figure(data: ReportData, rows: Sequence[FrontRow]) -> go.Figure:
    """Heat map: one row per model of the front, one column per channel group in network order."""
    groups = list(data.context.group_widths)
    dense = data.context.group_widths
    kept = [[keep(row.candidate, name, dense[name]) for name in groups] for row in rows]
    labels = [f"trial {row.trial} ({percent(row.costs[data.context.cost].ratio)})" for row in rows]
    hover = [
        [
            f"{safe(name)}<br>keeps {count} of {dense[name]} channels ({percent(count / dense[name])})"
            f"<br>criterion {safe(criterion(row.candidate, name))}"
            for name, count in zip(groups, line, strict=True)
        ]
        for row, line in zip(rows, kept, strict=True)
    ]
    figure = go.Figure(
        go.Heatmap(
            z=[[100 * count / dense[name] for name, count in zip(groups, line, strict=True)] for line in kept],
            x=[safe(name) for name in groups],
            y=labels,
            text=kept if len(groups) <= 40 else None,
            texttemplate="%{text}" if len(groups) <= 40 else None,
            customdata=hover,
            hovertemplate="%{y}<br>%{customdata}<extra></extra>",
            colorscale="Viridis",
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": "channels kept [%]", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    style(figure, height=190 + 30 * max(3, len(rows)))
    figure.update_xaxes(title="channel group, from input to output", tickangle=-60, showgrid=False, type="category")
    figure.update_yaxes(title=None, showgrid=False, type="category", autorange="reversed")
    return figure


def history_figure(data: ReportData, history: History) -> go.Figure:
    """Best-so-far hypervolume by trial, with what the baselines reach alone."""
    figure = go.Figure()
    figure.add_scatter(
        x=list(history.trials),
        y=[100 * value for value in history.values],
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        name="all trials so far",
        hovertemplate="trial %{x}<br>%{y:.2f} %<extra></extra>",
    )
    at = dict(zip(history.trials, history.values, strict=True))
    if history.baseline_trials:
        figure.add_scatter(
            x=list(history.baseline_trials),
            y=[100 * at[trial] for trial in history.baseline_trials],
            mode="markers",
            marker={"color": ORANGE, "symbol": "square", "size": 8},
            name="a baseline was tried",
            hovertemplate="trial %{x} is a baseline<br>%{y:.2f} %<extra></extra>",
        )
    if history.baselines is not None:
        figure.add_scatter(
            x=[history.trials[0], history.trials[-1]],
            y=[100 * history.baselines] * 2,
            mode="lines",
            line={"color": ORANGE, "width": 1.5, "dash": "dash"},
            name="baselines alone",
            hovertemplate="baselines alone<br>%{y:.2f} %<extra></extra>",
        )
    style(figure, height=360)
    figure.update_xaxes(title="trial number")
    figure.update_yaxes(title="dominated area [% of dense]", ticksuffix=" ")
    return figure


def _add_trials(
    figure: go.Figure, context: StudyContext, rows: Sequence[TrialRow], mark: tuple[str, str, str, int]
) -> None:
    if not rows:
        return
    name, colour, symbol, size = mark
    evaluations = [evaluation for row in rows if (evaluation := row.trial.evaluation)]
    figure.add_scatter(
        x=[evaluation.costs[context.cost].value for evaluation in evaluations],
        y=[_scaled(context, evaluation.score.value) for evaluation in evaluations],
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": size, "line": {"color": colour, "width": 1.5}},
        name=name,
        text=[trial_hover(context, row) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_finalists(
    figure: go.Figure, context: StudyContext, rows: Sequence[FrontRow], name: str, colour: str, symbol: str
) -> None:
    tests = [row.test for row in rows if row.test]
    figure.add_scatter(
        x=[row.costs[context.cost].value for row in rows],
        y=[_scaled(context, test.value) for test in tests],
        error_y=_error_bars(context, tests, colour),
        mode="markers",
        marker={
            "color": colour,
            "size": 11,
            "symbol": [symbol if row.on_front else f"{symbol}-open" for row in rows],
            "line": {"color": colour, "width": 1.5},
        },
        name=name,
        text=[finalist_hover(context, row) for row in rows],
        hovertemplate="%{text}<extra></extra>",
    )


def _add_dense(figure: go.Figure, context: StudyContext, score: Score) -> None:
    cost, estimate = context.dense_costs[context.cost], Estimate.of([score])
    figure.add_scatter(
        x=[cost],
        y=[_scaled(context, score.value)],
        error_y=_error_bars(context, [estimate], GREEN),
        mode="markers",
        marker={"color": GREEN, "symbol": "star", "size": 15},
        name="dense model",
        text=[f"dense model<br>{plus_minus(context.metric, estimate)}<br>{short(cost)} {cost_unit(context.cost)}"],
        hovertemplate="%{text}<extra></extra>",
    )


def _error_bars(context: StudyContext, estimates: Sequence[Estimate], colour: str) -> dict[str, object]:
    """95 % intervals; an estimate without one has no bar."""
    margins = [None if e.margin is None else _scaled(context, e.margin) for e in estimates]
    return {"type": "data", "array": margins, "color": colour, "thickness": 1.5, "width": 5}


def _cost_figure(context: StudyContext, score_title: str) -> go.Figure:
    figure = go.Figure()
    style(figure, height=500)
    unit = cost_unit(context.cost)
    figure.update_xaxes(title=f"{cost_title(context.cost)}{f' [{unit}]' if unit else ''}", tickformat="~s")
    direction = "higher" if context.metric.higher_is_better else "lower"
    percent_sign = " [%]" if context.metric.percent else ""
    figure.update_yaxes(title=safe(f"{score_title}{percent_sign} ({direction} is better)"))
    if context.cost in context.limits:
        limit = context.limits[context.cost]
        ratio = limit / context.dense_costs[context.cost]
        figure.add_vline(x=limit, line={"color": ORANGE, "width": 1.5, "dash": "dash"})
        figure.add_annotation(
            x=limit,
            y=0.01,
            yref="paper",
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
            text=f"budget {short(limit)} ({percent(ratio)})",
        )
    return figure


def style(figure: go.Figure, height: int) -> None:
    """The look all figures share; colours of text and grid come from the page."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 95},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={
            "orientation": "h",
            "yref": "container",
            "yanchor": "bottom",
            "y": 0,
            "x": 0,
            "bgcolor": "rgba(0,0,0,0)",
        },
        hoverlabel={"bgcolor": "#20262e", "bordercolor": "#20262e", "align": "left", "font": {"color": "#f2f4f7"}},
        hovermode="closest",
    )
    figure.update_xaxes(automargin=True, zeroline=False, gridwidth=1)
    figure.update_yaxes(automargin=True, zeroline=False, gridwidth=1)


def _baseline_on_front(row: TrialRow) -> bool:
    return row.category == "front" and row.trial.origin != "search"


def _scaled(context: StudyContext, value: float) -> float:
    return 100 * value if context.metric.percent else value
