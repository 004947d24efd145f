"""What sparse training did to the channels: their scales before and after, as numbers, a figure and a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from automl_prune.files import write_json, write_text
from automl_prune.report.document import document
from automl_prune.report.figures import BLUE, GREY, style
from automl_prune.report.markup import Cell, Row, figure, paragraph, section, table
from automl_prune.report.words import percent

BINS = 60
"""Of the histogram; the first one of its own holds exact zeros."""


@dataclass(frozen=True, slots=True)
class ScaleChange:
    """Channel scales before and after a sparse training.

    Attributes:
        name: Of the configuration.
        what: What a scale is, in words.
        strength: Of the penalty.
        start: What "before" is, in words.
        before: Scales by group, one per channel, at least 0.
        after: The same channels afterwards.
    """

    name: str
    what: str
    strength: float
    start: str
    before: Mapping[str, tuple[float, ...]]
    after: Mapping[str, tuple[float, ...]]

    @property
    def zeros(self) -> int:
        """Channels at exactly zero afterwards."""
        return sum(value == 0 for values in self.after.values() for value in values)

    @property
    def channels(self) -> int:
        """Channels in all."""
        return sum(len(values) for values in self.after.values())


def write_scales(change: ScaleChange, path: Path) -> None:
    """Write ``path`` (HTML) and the numbers beside it as JSON, both atomically."""
    write_json(path.with_suffix(".json"), asdict(change))
    write_text(path, render_scales(change))


def histogram(change: ScaleChange) -> tuple[list[float], list[int], list[int]]:
    """Left edges of the bins, and how many channels before and after; the first bin holds exact zeros."""
    before, after = (
        np.array([v for values in side.values() for v in values]) for side in (change.before, change.after)
    )
    highest = max(before.max(initial=0), after.max(initial=0)) or 1.0
    edges = np.linspace(0, highest, BINS + 1)
    width = highest / BINS
    return [-width, *edges[:-1].tolist()], _counts(before, edges), _counts(after, edges)


def _counts(values: NDArray[np.float64], edges: NDArray[np.float64]) -> list[int]:
    return [int((values == 0).sum()), *np.histogram(values[values > 0], edges)[0].tolist()]


def scales_figure(change: ScaleChange) -> go.Figure:
    """Histogram of all channels' scales, before and after."""
    lefts, before, after = histogram(change)
    width = lefts[1] - lefts[0]
    ranges = ["exactly 0", *(f"{left:.3g} to {left + width:.3g}" for left in lefts[1:])]
    drawing = go.Figure()
    for name, counts, colour in ((change.start, before, GREY), ("after sparse training", after, BLUE)):
        drawing.add_bar(
            x=[left + width / 2 for left in lefts],
            y=counts,
            width=width,
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            opacity=0.65,
            customdata=ranges,
            hovertemplate="scale %{customdata}<br>%{y} channels<extra>" + name + "</extra>",
        )
    style(drawing, height=420)
    drawing.update_layout(barmode="overlay")
    drawing.update_xaxes(title=f"{change.what} (the bar left of 0: exactly 0)")
    drawing.update_yaxes(title="channels")
    return drawing


def render_scales(change: ScaleChange) -> str:
    """The whole page as text."""
    found = (
        f"{change.zeros} of {change.channels} channels ({percent(change.zeros / change.channels)}) are exactly zero "
        f"after training with strength {change.strength:g}."
    )
    heads = ["group", "channels", "zero before", "zero after", "median before", "median after", "largest after"]
    rows = [_row(name, change.before[name], values) for name, values in change.after.items()]
    parts = {
        "figure": ("Distribution", section("figure", "Distribution", figure("scales", scales_figure(change), found))),
        "groups": (
            "Groups",
            section(
                "groups",
                "By channel group",
                paragraph("Groups are in network order; a channel at zero can be cut without changing anything else.")
                if change.what.startswith("norm")
                else paragraph("Groups are in network order."),
                table("Scales by channel group", heads, rows, sortable=True),
            ),
        ),
    }
    return document(f"{change.name}, sparse training", f"Sparse training: {change.name}", found, parts)


def _row(name: str, before: Sequence[float], after: Sequence[float]) -> Row:
    counts = [len(after), sum(v == 0 for v in before), sum(v == 0 for v in after)]
    sizes = [float(np.median(before)), float(np.median(after)), max(after)]
    return Row(
        [
            Cell(name),
            *(Cell(str(count), count, "number") for count in counts),
            *(Cell(f"{size:.4g}", size, "number") for size in sizes),
        ]
    )
