"""The fine-tuned models on the test split."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.report.cells import models_table
from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import BLUE, GREEN, ORANGE, add_dense, cost_figure, error_bars, scaled
from automl_prune.report.hover import finalist_hover
from automl_prune.report.markup import figure, missing, paragraph
from automl_prune.report.table import FrontRow
from automl_prune.report.words import plural
from automl_prune.study.record import StudyContext


def render(data: ReportData) -> str:
    """The fine-tuned models on the test split: figure and table."""
    if isinstance(data.finalists, Missing):
        return missing(data.finalists.reason)
    context, rows = data.context, data.finalists
    runs = max(row.val.seeds for row in rows)
    caption = (
        f"{plural(len(rows), 'finalist')} under the budget, fine-tuned with up to {plural(runs, 'seed')} and scored on "
        f"the test split; bars are 95 % intervals (seeds and the finite test set), where known. "
        f"{plural(sum(row.on_front for row in rows), 'filled mark')} on the front by validation score; the others are "
        f"dominated. The dotted line is the dense model's {context.metric.show(context.dense_test.value)}; "
        f"double-click the figure to see the model itself."
    )
    drawing = finalists_figure(data, rows)
    names = "± is half the 95 % interval; the chosen model is marked."
    return (
        figure("figure-finalists", drawing, caption) + paragraph(names, "soft") + models_table(data, rows, "Finalists")
    )


def finalists_figure(data: ReportData, rows: Sequence[FrontRow]) -> go.Figure:
    """Test score against cost of the fine-tuned finalists with 95 % intervals, the dense model and the budget."""
    context = data.context
    figure = cost_figure(context, f"test {context.metric.name}")
    chosen = [row for row in rows if row.on_front]
    figure.add_scatter(
        x=[row.costs[context.cost].value for row in chosen],
        y=[scaled(context, row.test.value) for row in chosen if row.test],
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
    add_dense(figure, context, context.dense_test)
    figure.add_hline(y=scaled(context, context.dense_test.value), line={"color": GREEN, "width": 1.5, "dash": "dot"})
    costs = [row.costs[context.cost].value for row in rows]
    right = max([*costs, context.limits.get(context.cost, 0.0)])
    margin = max(0.08 * (right - min(costs)), 0.02 * right)
    figure.update_xaxes(range=[min(costs) - margin, right + margin])
    return figure


def _add_finalists(
    figure: go.Figure, context: StudyContext, rows: Sequence[FrontRow], name: str, colour: str, symbol: str
) -> None:
    tests = [row.test for row in rows if row.test]
    figure.add_scatter(
        x=[row.costs[context.cost].value for row in rows],
        y=[scaled(context, test.value) for test in tests],
        error_y=error_bars(context, tests, colour),
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
