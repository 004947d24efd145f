"""Scatter plots of characters, for terminals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MARGIN = 0.04
"""Free space at each side, as a fraction of an axis, so that no point lies on the frame."""


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) drawn with one character; its name stands in the legend."""

    mark: str
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """What an axis shows, and how its values are written."""

    title: str
    show: Callable[[float], str]


def scatter(series: Sequence[Series], x: Axis, y: Axis, *, width: int, height: int) -> str:
    """A scatter plot as lines of text; empty when there is no point.

    Args:
        series: Where points meet, later series are drawn over earlier ones.
        x: Horizontal axis.
        y: Vertical axis.
        width: Columns of the whole, labels included, at least 40.
        height: Rows of the plane, at least 3; three more hold the axis, its values and the legend.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    (left, right), (low, high) = (_range([point[axis] for point in points]) for axis in (0, 1))
    labels = {0: y.show(high), height // 2: y.show((low + high) / 2), height - 1: y.show(low)}
    gutter = max(map(len, labels.values())) + 2
    columns = width - gutter - 1
    plane = [[" "] * columns for _ in range(height)]
    for one in series:
        for px, py in one.points:
            column = round((px - left) / (right - left) * (columns - 1))
            row = round((high - py) / (high - low) * (height - 1))
            plane[row][column] = one.mark
    rows = [
        f"{labels.get(number, ''):>{gutter - 1}} {'┤' if number in labels else '│'}{''.join(cells)}".rstrip()
        for number, cells in enumerate(plane)
    ]
    ends = f"{x.show(left)}{x.title:^{columns - len(x.show(left)) - len(x.show(right))}}{x.show(right)}"
    legend = "   ".join(f"{one.mark} {one.name}" for one in series if one.points)
    indent = " " * gutter
    return "\n".join((indent + y.title, *rows, f"{indent}└{'─' * columns}", f"{indent} {ends}", f"{indent} {legend}"))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """The ends of an axis; of some extent even when all values are equal."""
    low, high = min(values), max(values)
    extent = (high - low) or abs(high) * 0.02 or 1.0
    return low - _MARGIN * extent, high + _MARGIN * extent
