"""The sections of the page: one file each, with what it collects, its figure and its HTML.

A section is a function from the report's shared data to the HTML below its title; what it cannot show it leaves out
with a reason (``markup.missing``). To add one: a file here, and a line in ``ORDER``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import plotly.graph_objects as go

from automl_prune.report.data import ReportData
from automl_prune.report.sections import (
    answer,
    commands,
    costs,
    criteria,
    front,
    history,
    importance,
    latency,
    protected,
    provenance,
    rungs,
    sensitivity,
    trials,
    widths,
    workers,
)


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the page.

    Attributes:
        identifier: On the page.
        title: Of the section and of its link.
        render: Makes its HTML.
        figures: Its drawings by file name, to be written as images too; none where there is nothing to draw.
    """

    identifier: str
    title: str
    render: Callable[[ReportData], str]
    figures: Callable[[ReportData], Mapping[str, go.Figure]] = lambda _: {}


ORDER = (
    Section("answer", "Answer", answer.render),
    Section("front", "Front", front.render, front.figures),
    Section("latency", "Latency", latency.render, latency.figures),
    Section("widths", "Kept widths", widths.render, widths.figures),
    Section("sensitivity", "Sensitivity", sensitivity.render, sensitivity.figures),
    Section("criteria", "Criteria", criteria.render, criteria.figures),
    Section("history", "History", history.render, history.figures),
    Section("rungs", "Agreement of the rungs", rungs.render, rungs.figures),
    Section("importance", "Parameter importance", importance.render, importance.figures),
    Section("workers", "Workers and failures", workers.render, workers.figures),
    Section("trials", "Trials", trials.render),
    Section("protected", "Protected channels", protected.render),
    Section("costs", "Costs of the search", costs.render),
    Section("provenance", "Configuration and environment", provenance.render),
    Section("commands", "Commands", commands.render),
)
"""In the order of the page."""
