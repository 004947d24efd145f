"""The sections of the page: one file each, with what it collects, its figure and its HTML.

A section is a function from the report's shared data to the HTML below its title; what it cannot show it leaves out
with a reason (``markup.missing``). To add one: a file here, and a line in ``ORDER``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from automl_prune.report.data import ReportData
from automl_prune.report.sections import (
    answer,
    commands,
    costs,
    criteria,
    front,
    history,
    importance,
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
    """One section: its identifier on the page, its title, and what makes its HTML."""

    identifier: str
    title: str
    render: Callable[[ReportData], str]


ORDER = (
    Section("answer", "Answer", answer.render),
    Section("front", "Front", front.render),
    Section("widths", "Kept widths", widths.render),
    Section("sensitivity", "Sensitivity", sensitivity.render),
    Section("criteria", "Criteria", criteria.render),
    Section("history", "History", history.render),
    Section("rungs", "Agreement of the rungs", rungs.render),
    Section("importance", "Parameter importance", importance.render),
    Section("workers", "Workers and failures", workers.render),
    Section("trials", "Trials", trials.render),
    Section("protected", "Protected channels", protected.render),
    Section("costs", "Costs of the search", costs.render),
    Section("provenance", "Configuration and environment", provenance.render),
    Section("commands", "Commands", commands.render),
)
"""In the order of the page."""
