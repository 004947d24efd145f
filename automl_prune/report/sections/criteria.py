"""Which criteria chose the channels: in what the search proposed, and in what survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import plotly.graph_objects as go

from automl_prune.candidate import Candidate
from automl_prune.report.data import Missing, ReportData
from automl_prune.report.figures import BLUE, ORANGE, style
from automl_prune.report.hover import safe
from automl_prune.report.markup import figure, missing
from automl_prune.report.words import percent, plural


@dataclass(frozen=True, slots=True)
class Usage:
    """How often criteria were used.

    Attributes:
        criteria: The most used of the front first.
        tried: Share of all groups of the search's completed trials, baselines left out, by criterion.
        front: Share of all groups of the front's models.
        trials: How many trials were counted.
        models: How many models of the front.
    """

    criteria: tuple[str, ...]
    tried: tuple[float, ...]
    front: tuple[float, ...]
    trials: int
    models: int


def render(data: ReportData) -> str:
    """Bars: the share of groups each criterion chose."""
    found = usage(data)
    if isinstance(found, Missing):
        return missing(found.reason)
    leaders = [name for name, share in zip(found.criteria, found.front, strict=True) if share == max(found.front)]
    lead = f"{' and '.join(leaders)} {'leads' if len(leaders) == 1 else 'lead'} with {percent(max(found.front))}"
    caption = (
        f"Share of channel groups whose channels each criterion chose, over the {plural(found.trials, 'trial')} that "
        f"the search proposed and over the {plural(found.models, 'model')} of the front, baselines included. On the "
        f"front {lead}; a longer bar on the front than among the trials means that a criterion's models were kept more "
        "often than others."
    )
    return figure("figure-criteria", usage_figure(found), caption)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """The bars."""
    found = usage(data)
    return {} if isinstance(found, Missing) else {"criteria": usage_figure(found)}


def usage(data: ReportData) -> Usage | Missing:
    """The shares of all criteria that a completed trial used."""
    if isinstance(data.front, Missing):
        return Missing(data.front.reason)
    trials = [e.candidate for r in data.trials if r.trial.origin == "search" and (e := r.trial.evaluation)]
    if not trials:
        return Missing("The search has completed no trial of its own yet, only baselines.")
    tried, front = _count(trials), _count(row.candidate for row in data.front)
    names = sorted(tried.keys() | front.keys(), key=lambda name: (-front[name], -tried[name], name))
    if len(names) < 2:
        return Missing(f"Every group of every trial was ranked by one criterion, {names[0] if names else 'none'}.")
    shares, kept = (tuple(counts[name] / max(1, counts.total()) for name in names) for counts in (tried, front))
    return Usage(tuple(names), shares, kept, len(trials), len(data.front))


def _count(candidates: Iterable[Candidate]) -> Counter[str]:
    return Counter(choice.criterion for candidate in candidates for choice in candidate.choices.values())


def usage_figure(found: Usage) -> go.Figure:
    """Two bars per criterion."""
    drawing = go.Figure()
    names = [safe(name) for name in found.criteria]
    for label, shares, colour, pattern in (
        ("trials of the search", found.tried, BLUE, ""),
        ("models of the front", found.front, ORANGE, "/"),
    ):
        drawing.add_bar(
            x=[100 * share for share in shares],
            y=names,
            orientation="h",
            name=label,
            marker={"color": colour, "line": {"width": 0}, "pattern": {"shape": pattern, "size": 5}},
            hovertemplate="%{y}: %{x:.1f} % of groups<extra>" + label + "</extra>",
        )
    style(drawing, height=150 + 42 * len(names))
    drawing.update_layout(barmode="group", bargap=0.3)
    drawing.update_xaxes(title="share of channel groups [%]", rangemode="tozero")
    drawing.update_yaxes(title="criterion", autorange="reversed", type="category")
    return drawing
