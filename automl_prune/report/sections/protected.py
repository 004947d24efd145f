"""Channels that are not pruned, and why."""

from __future__ import annotations

from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, number, paragraph, table


def render(data: ReportData) -> str:
    """Channels that are not prunable, and why."""
    if not data.context.skipped:
        return paragraph("Every channel of the model is prunable.")
    rows = [Row([Cell(name), number(width), Cell(reason, kind="text")]) for name, width, reason in data.context.skipped]
    return table("Protected channels", ["layer", "channels", "why it is not pruned"], rows)
