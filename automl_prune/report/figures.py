"""What the report's figures in plotly share; colours of text and lines are left to the page's style."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.report.estimate import Estimate
from automl_prune.report.hover import safe
from automl_prune.report.words import cost_title, cost_unit, percent, plus_minus, short
from automl_prune.study.record import StudyContext
from automl_prune.tasks.base import Score

# Okabe and Ito's palette, those of its colours that stand out on white and on near-black alike; each also has a shape.
BLUE, ORANGE, GREEN, GREY = "#2f86c9", "#d55e00", "#009e73", "#8a919c"


def add_dense(figure: go.Figure, context: StudyContext, score: Score) -> None:
    """The dense model's mark, a star, with its 95 % interval."""
    cost, estimate = context.dense_costs[context.cost], Estimate.of([score])
    figure.add_scatter(
        x=[cost],
        y=[scaled(context, score.value)],
        error_y=error_bars(context, [estimate], GREEN),
        mode="markers",
        marker={"color": GREEN, "symbol": "star", "size": 15},
        name="dense model",
        text=[f"dense model<br>{plus_minus(context.metric, estimate)}<br>{short(cost)} {cost_unit(context.cost)}"],
        hovertemplate="%{text}<extra></extra>",
    )


def error_bars(context: StudyContext, estimates: Sequence[Estimate], colour: str) -> dict[str, object]:
    """95 % intervals; an estimate without one has no bar."""
    margins = [None if e.margin is None else scaled(context, e.margin) for e in estimates]
    return {"type": "data", "array": margins, "color": colour, "thickness": 1.5, "width": 5}


def cost_figure(context: StudyContext, score_title: str) -> go.Figure:
    """An empty figure of a score against the front's cost, with the budget's line."""
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


def scaled(context: StudyContext, value: float) -> float:
    """A score as it is drawn: in per cent where people read the metric so."""
    return 100 * value if context.metric.percent else value
