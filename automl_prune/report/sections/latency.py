"""Latency: predicted against measured, and what it gained beside what multiply-accumulates promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import plotly.graph_objects as go

from automl_prune.costs import Cost
from automl_prune.costs.predictor import PredictionError
from automl_prune.report.cells import efficiency_cell, trial_cell
from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import BLUE, GREY, style
from automl_prune.report.markup import Cell, Row, figure, missing, number, paragraph, table
from automl_prune.report.measured import NOISY, remarks
from automl_prune.report.table import FrontRow, completed
from automl_prune.report.words import cost_value, percent, plural


def render(data: ReportData) -> str:
    """Predicted against measured latency of all trials, and of every model its latency cut beside its MACs cut."""
    costs = _predicted(data)
    parts = [figure("figure-latency", drawing, _caption(list(costs.values()))) for drawing in figures(data).values()]
    rows = data.front if isinstance(data.finalists, Missing) else data.finalists
    if any("latency" in evaluation.costs for _, evaluation in completed(data.record)):
        said = "Latencies are those by which the search judged its candidates."
    else:
        said = "The search did not ask for latency; it was measured on the exported files."
    if isinstance(rows, Missing):
        return "".join(parts) + missing(rows.reason)
    measured = [row for row in rows if row.latency is not None]
    if not measured:
        return missing(
            "Latency was not measured: neither the budget nor the search space asks for it, and nothing was exported."
        )
    return "".join(parts) + _cuts(measured) + paragraph(said, "soft")


def figures(data: ReportData) -> dict[str, go.Figure]:
    """Predicted against measured."""
    costs = _predicted(data)
    return {"latency": latency_figure(costs)} if len(costs) > 1 else {}


def _predicted(data: ReportData) -> dict[int, Cost]:
    """The latencies that were predicted and then measured, by trial."""
    found = {trial.number: evaluation.costs.get("latency") for trial, evaluation in completed(data.record)}
    return {trial: cost for trial, cost in found.items() if cost is not None and cost.predicted is not None}


def prediction_error(costs: Sequence[Cost]) -> PredictionError:
    """How far the predictions of measured costs were off; all were predicted."""
    return PredictionError.of([cost.predicted or 0.0 for cost in costs], [cost.value for cost in costs])


def latency_figure(costs: dict[int, Cost]) -> go.Figure:
    """Predicted against measured latency by trial, with the diagonal."""
    plot = go.Figure()
    ends = [min(min(c.value, c.predicted or c.value) for c in costs.values())]
    ends.append(max(max(c.value, c.predicted or c.value) for c in costs.values()))
    plot.add_scatter(
        x=[1e3 * end for end in ends], y=[1e3 * end for end in ends], mode="lines", name="as predicted",
        line={"color": GREY, "width": 1.5, "dash": "dot"}, hoverinfo="skip",
    )  # fmt: skip
    plot.add_scatter(
        x=[1e3 * cost.value for cost in costs.values()],
        y=[1e3 * cost.predicted for cost in costs.values() if cost.predicted is not None],
        mode="markers",
        marker={"color": BLUE, "symbol": "circle-open", "size": 8},
        name="trial",
        customdata=list(costs),
        hovertemplate="trial %{customdata}<br>measured %{x:.3~g} ms, predicted %{y:.3~g} ms<extra></extra>",
    )
    style(plot, height=420)
    plot.update_xaxes(title="measured latency [ms]")
    plot.update_yaxes(title="predicted latency [ms]")
    return plot


def _caption(costs: Sequence[Cost]) -> str:
    error = prediction_error(costs)
    return (
        f"Predicted against measured latency of {plural(len(costs), 'trial')}: mean error {percent(error.mape)}, rank "
        f"correlation {error.spearman:.3f}. Predictions only decide what is tried; budgets are judged by measurements."
    )


def _cuts(rows: Sequence[FrontRow]) -> str:
    heads = ["trial", "origin", "MACs cut", "latency cut", "95 % interval", "latency", "efficiency", "remark"]
    lines = [Row(_cut(row, latency)) for row in rows if (latency := row.latency) is not None]
    said = "Efficiency is the speed-up in latency divided by that in MACs: 1 where all that was cut is saved."
    found = Counter(remark for row in rows if row.latency is not None for remark in remarks(row.latency))
    for remark, count in found.items():
        said += f" {plural(count, 'model')} {'is' if count == 1 else 'are'} {remark}."
    return table("What was cut, and what it saved", heads, lines, sortable=True) + paragraph(said, "soft")


def _cut(row: FrontRow, latency: Cost) -> list[Cell]:
    low, high = (1 - end / latency.dense for end in reversed(latency.interval or (latency.value, latency.value)))
    because = [f"noisy: {latency.noisy}" if remark == NOISY else remark for remark in remarks(latency)]
    return [
        trial_cell(row.trial), Cell(row.origin),
        number(1 - row.costs["macs"].ratio, percent(1 - row.costs["macs"].ratio)),
        number(1 - latency.ratio, percent(1 - latency.ratio)),
        number(low, f"{percent(low)} to {percent(high)}"),
        number(latency.value, cost_value("latency", latency.value)),
        efficiency_cell(row), Cell(", ".join(because), kind="text"),
    ]  # fmt: skip
