"""Which parameters of the search space mattered."""

from __future__ import annotations

import plotly.graph_objects as go

from automl_prune.report.data import ReportData
from automl_prune.report.figures import BLUE, ORANGE, style
from automl_prune.report.hover import safe
from automl_prune.report.markup import figure, missing
from automl_prune.report.words import percent, plural
from automl_prune.study.importance import FEWEST, Importance, importance

MOST_SHOWN = 15
"""Bars that are drawn; a search space has a parameter per channel group."""


def render(data: ReportData) -> str:
    """Bars for the most important parameters."""
    found = importance(data.record)
    if found is None:
        return missing(f"Importances need {FEWEST} completed trials whose parameters differ; fewer give only noise.")
    metric, names = data.context.metric.name, _order(found)
    shown = names[:MOST_SHOWN]
    rest = sum(found.front[name] for name in names[MOST_SHOWN:])
    caption = (
        f"How much each parameter of the search space decides whether a trial is among the best tenth by {metric}, and "
        f"among the best by {metric} and cost together (PED-ANOVA over {plural(found.trials, 'trial')}; each kind sums "
        f"to 100 %; scores without training). {shown[0]} matters most for the front ({percent(found.front[shown[0]])})."
    )
    if names[MOST_SHOWN:]:
        caption += f" {plural(len(names) - MOST_SHOWN, 'further parameter')} share the remaining {percent(rest)}."
    return figure("figure-importance", importance_figure(found, metric), caption)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The bars."""
    found = importance(data.record)
    return {} if found is None else {"importance": importance_figure(found, data.context.metric.name)}


def _order(found: Importance) -> list[str]:
    return sorted(found.front, key=lambda name: (-found.front[name], name))


def importance_figure(found: Importance, metric: str) -> go.Figure:
    """Two bars per parameter, the most important for the front first."""
    names = _order(found)[:MOST_SHOWN]
    drawing = go.Figure()
    for label, values, colour, pattern in (
        (f"{metric} and cost together", found.front, BLUE, ""),
        (f"{metric} alone", found.score, ORANGE, "/"),
    ):
        drawing.add_bar(
            x=[100 * values[name] for name in names],
            y=[safe(name) for name in names],
            orientation="h",
            name=safe(label),
            marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5}},
            hovertemplate="%{y}: %{x:.1f} %<extra>" + safe(label) + "</extra>",
        )
    style(drawing, height=170 + 34 * len(names))
    drawing.update_layout(barmode="group", bargap=0.3)
    drawing.update_xaxes(title="importance [%]", rangemode="tozero")
    drawing.update_yaxes(title=None, autorange="reversed", type="category")
    return drawing
