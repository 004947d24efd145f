"""A sensitivity analysis for people: a heat map and tables on one page, and the numbers as CSV."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from automl_prune.files import write_text
from automl_prune.report.document import document
from automl_prune.report.estimate import Estimate
from automl_prune.report.figures import style
from automl_prune.report.hover import safe
from automl_prune.report.markup import Cell, Row, figure, paragraph, section, table
from automl_prune.report.words import percent, plus_minus, signed
from automl_prune.sensitivity import Sensitivity


def write_sensitivity(result: Sensitivity, directory: Path, name: str) -> Path:
    """Write sensitivity.csv and sensitivity.html atomically; returns the page's path."""
    page = directory / "sensitivity.html"
    write_text(directory / "sensitivity.csv", sensitivity_frame(result).to_csv(index=False))
    write_text(page, render_sensitivity(result, name))
    return page


def sensitivity_frame(result: Sensitivity) -> pd.DataFrame:
    """One row per variant, group and prune ratio asked for; values in the metric's own unit, not in per cent."""
    rows = []
    for variant in result.variants:
        for group, width in result.widths.items():
            for ratio in result.ratios:
                point = result.point(variant, group, ratio)
                rows.append(
                    {
                        "variant": variant,
                        "criterion": result.criterion,
                        "group": group,
                        "width": width,
                        "prune_ratio": ratio,
                        "kept": point.keep,
                        result.metric.name: point.score.value,
                        "standard_error": point.score.standard_error,
                        "drop": result.drop(point),
                        f"dense_{result.metric.name}": result.dense.value,
                        "dense_standard_error": result.dense.standard_error,
                        "samples": point.score.samples,
                    }
                )
    return pd.DataFrame(rows)


def noise(result: Sensitivity) -> str:
    """The dense score with its uncertainty, in a sentence that says which drops mean nothing."""
    dense = plus_minus(result.metric, Estimate.of([result.dense]))
    text = f"The dense model scores {dense} ({result.metric.name}, {result.dense.samples:,} validation samples)"
    if result.dense.standard_error is None:
        return text + "."
    return text + ", ± half its 95 % interval: drops below that may be noise."


def sensitivity_figure(result: Sensitivity, variant: str) -> go.Figure:
    """Heat map of one variant: a column per channel group in network order, a row per prune ratio."""
    scale, unit = (100, "points") if result.metric.percent else (1, result.metric.name)
    drops = result.drops(variant)
    groups = list(result.widths)
    every = [scale * d for v in result.variants for by_ratio in result.drops(v).values() for d in by_ratio.values()]
    values = [[scale * drops[group][ratio] for group in groups] for ratio in result.ratios]
    hover = [
        [
            f"{safe(group)}<br>keeps {(point := result.point(variant, group, ratio)).keep} of {result.widths[group]} "
            f"channels<br>{safe(result.metric.name)} {result.metric.show(point.score.value)}"
            for group in groups
        ]
        for ratio in result.ratios
    ]
    drawing = go.Figure(
        go.Heatmap(
            z=values,
            x=[safe(group) for group in groups],
            y=[percent(ratio) for ratio in result.ratios],
            customdata=hover,
            hovertemplate="%{y} removed from %{customdata}<br>drop %{z:.3g} " + unit + "<extra></extra>",
            texttemplate="%{z:.1f}" if len(groups) <= 24 and result.metric.percent else None,
            colorscale="Viridis",
            reversescale=True,
            zmin=min(0.0, *every),
            zmax=max(every),
            xgap=1,
            ygap=1,
            colorbar={"title": {"text": f"drop [{unit}]", "side": "right"}, "thickness": 12, "outlinewidth": 0},
        )
    )
    style(drawing, height=220 + 36 * len(result.ratios))
    drawing.update_xaxes(title="channel group, from input to output", tickangle=-60, showgrid=False, type="category")
    drawing.update_yaxes(title="prune ratio (share removed)", showgrid=False, type="category")
    return drawing


def render_sensitivity(result: Sensitivity, name: str) -> str:
    """The whole page as text."""
    parts = {}
    for number, variant in enumerate(result.variants):
        caption = (
            f"Drop of {result.metric.name} when one group alone is pruned by {result.criterion} and nothing is "
            f"trained, {variant}. {noise(result)}"
        )
        drawn = figure(f"heat-{number}", sensitivity_figure(result, variant), caption, wide=True)
        title = f"Pruned, {variant}"
        parts[f"variant-{number}"] = (title, section(f"variant-{number}", title, drawn, _table(result, variant)))
    return document(f"{name}, sensitivity", f"Sensitivity: {name}", noise(result), parts)


def _table(result: Sensitivity, variant: str) -> str:
    unit = " in points" if result.metric.percent else ""
    heads = ["group", "channels", *(f"{percent(ratio)} removed" for ratio in result.ratios)]
    drops = result.drops(variant)
    rows = [
        Row(
            [
                Cell(group),
                Cell(str(width), width, "number"),
                *(Cell(signed(result.metric, drops[group][r]), drops[group][r], "number") for r in result.ratios),
            ]
        )
        for group, width in result.widths.items()
    ]
    caption = f"Drop of {result.metric.name}{unit} by channel group, {variant}"
    return paragraph(f"{caption}:", "soft") + table(caption, heads, rows, sortable=True)
