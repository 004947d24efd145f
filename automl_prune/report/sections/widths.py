"""How many channels the models of the front keep, group by group."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import style
from automl_prune.report.hover import criterion, keep, safe
from automl_prune.report.markup import Cell, Row, figure, missing, number, table
from automl_prune.report.table import FrontRow
from automl_prune.report.words import percent, plural


def render(data: ReportData) -> str:
    """Kept widths of the front's models: heat map and the same as a table."""
    if isinstance(data.front, Missing):
        return missing(data.front.reason)
    dense = data.context.group_widths
    if not dense:
        return missing("The model has no prunable channel group.")
    caption = (
        f"Channels kept in each of {plural(len(dense), 'group')} by the front's models, cheapest first; the deeper the "
        "blue, the larger the share of the group that is kept."
    )
    heads = ["group", "dense", *(f"trial {row.trial}" for row in data.front)]
    rows = [
        Row([
            Cell(name), number(width, str(width)),
            *(number(kept, str(kept)) for kept in (keep(r.candidate, name, width) for r in data.front)),
        ])
        for name, width in dense.items()
    ]  # fmt: skip
    drawing = widths_figure(data, data.front)
    listing = f"<details>\n<summary>The same as a table</summary>\n{table('Kept widths', heads, rows)}\n</details>"
    return figure("figure-widths", drawing, caption, wide=True) + listing


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The heat map."""
    if isinstance(data.front, Missing) or not data.context.group_widths:
        return {}
    return {"widths": widths_figure(data, data.front)}


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
            colorscale=[(0, "#f4f8fc"), (1, "#63a9d8")],  # light enough for dark numbers in every cell
            textfont={"color": "#1b2027"},
            zmin=0,
            zmax=100,
            xgap=1,
            ygap=1,
            colorbar={"ticksuffix": " %", "thickness": 12, "outlinewidth": 0},
        )
    )
    style(figure, height=190 + 30 * max(3, len(rows)))
    figure.update_xaxes(title="channel group, from input to output", tickangle=-60, showgrid=False, type="category")
    figure.update_yaxes(title=None, showgrid=False, type="category", autorange="reversed")
    return figure
