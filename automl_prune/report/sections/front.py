"""The front: score against a cost of choice, the finalists or all trials, with a card for every model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import plotly.graph_objects as go

from automl_prune.report.cards import cards, shared
from automl_prune.report.cells import models_table
from automl_prune.report.data import Missing, ReportData
from automl_prune.report.markup import json_script, missing, paragraph, text
from automl_prune.report.scatter import finalists_figure, score_view, search_figure
from automl_prune.report.words import cost_label, plural

_STAGES = {"finalists": "finalists, test split", "search": "all trials, validation split"}
_HELP = "Click a mark, or use the arrow keys and Enter; numbers in the tables open the same card."


def render(data: ReportData) -> str:
    """Switches, figure, card, and the table of the finalists (before them, of the search's front)."""
    if not any(row.category for row in data.trials):
        return missing("No trial has completed, so there is nothing to draw.")
    found = views(data)
    content = {
        "figures": {
            key: {"figure": figure.to_plotly_json(), "caption": words} for key, (figure, words) in found.items()
        },
        "models": cards(data),
        "shared": shared(data),
    }
    parts = [
        _switches(data),
        _figure_and_card(next(iter(found.values()))[1]),
        json_script(content, identifier="front-figures"),
    ]
    if isinstance(data.finalists, Missing):
        parts.append(missing(data.finalists.reason))
    rows = data.front if isinstance(data.finalists, Missing) else data.finalists
    if isinstance(rows, Missing):
        parts.append(missing(rows.reason))
    else:
        parts.append(paragraph("± is half the 95 % interval; the chosen model is marked.", "soft"))
        parts.append(models_table(data, rows, "Models of the front"))
    if data.record.sweep is not None:
        parts.append(paragraph(data.record.sweep.sentence(data.context.metric)))
    return "\n".join(parts)


def figures(data: ReportData) -> dict[str, go.Figure]:
    """Every view, without the ring that the page's script moves."""
    if not any(row.category for row in data.trials):
        return {}
    found = {}
    for key, (drawing, _) in views(data).items():
        drawing.data = drawing.data[:-1]
        found[f"front_{key.replace('/', '_')}"] = drawing
    return found


def views(data: ReportData) -> dict[str, tuple[go.Figure, str]]:
    """Figure and caption by ``stage/cost``; the first is the one to start with."""
    found = {}
    for cost in _costs(data):
        if not isinstance(data.finalists, Missing):
            found[f"finalists/{cost}"] = (finalists_figure(data, data.finalists, cost), _finalists_caption(data, cost))
        found[f"search/{cost}"] = (search_figure(data, cost), _search_caption(data, cost))
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")[0] == "search"))


def _costs(data: ReportData) -> list[str]:
    """The front's own cost first."""
    return sorted(data.context.dense_costs, key=lambda name: name != data.context.cost)


def _finalists_caption(data: ReportData, cost: str) -> str:
    if isinstance(data.finalists, Missing):
        return data.finalists.reason
    context, rows = data.context, data.finalists
    runs = max(row.val.seeds for row in rows)
    return (
        f"Test {context.metric.name} against {cost_label(cost)} of {plural(len(rows), 'finalist')} under the budget, "
        f"fine-tuned with up to {plural(runs, 'seed')}; bars are 95 % intervals (seeds and the finite test set), where "
        "known. Filled marks are on the front by validation score, hollow ones are dominated. The dotted line is the "
        f"dense model's {context.metric.show(context.dense_test.value)}; double-click to see the model itself."
    )


def _search_caption(data: ReportData, cost: str) -> str:
    counts = Counter(row.category for row in data.trials)
    shown = sum(e is not None and cost in e.costs for e in (row.trial.evaluation for row in data.trials))
    context = data.context
    words = (
        f"Validation {context.metric.name} against {cost_label(cost)} of {plural(shown, 'completed trial')}, before "
        f"the finalists' longer fine-tuning. By {cost_label(context.cost)}, {counts['front']} are on the front; there "
        f"are {counts['search']} further search trials, {counts['baseline']} further baselines and "
        f"{counts['over budget']} over budget. Bars on the front are 95 % intervals, where known."
    )
    if counts["lower rung"]:
        words += (
            f" {plural(counts['lower rung'], 'trial')} stayed at a lower rung, because a trial of no higher cost was "
            "better there, and cannot be compared with the others."
        )
    if score_view(data) is not None:
        words += " A few far worse trials lie outside the first view; double-click to see all."
    return words


def _switches(data: ReportData) -> str:
    stages = [stage for stage in _STAGES if stage == "search" or not isinstance(data.finalists, Missing)]
    return (
        '<div class="switches noprint">'
        + _switch("stage", "Show", {stage: _STAGES[stage] for stage in stages})
        + _switch("cost", "Against", {cost: cost_label(cost) for cost in _costs(data)})
        + "</div>"
    )


def _switch(name: str, legend: str, choices: Mapping[str, str]) -> str:
    options = "".join(
        f'<label><input type="radio" name="{name}" value="{text(value)}"{" checked" if number == 0 else ""}>'
        f" {text(label)}</label>"
        for number, (value, label) in enumerate(choices.items())
    )
    return f'<fieldset class="switch"><legend>{text(legend)}</legend>{options}</fieldset>'


def _figure_and_card(caption: str) -> str:
    return (
        '<div class="front">\n<figure>\n'
        f'<div class="plot" id="figure-front" tabindex="0" role="group" aria-describedby="front-help" '
        f'aria-label="{text(caption)}"></div>\n'
        f'<figcaption><span id="front-caption">{text(caption)}</span> '
        f'<span id="front-help" class="noprint">{text(_HELP)}</span></figcaption>\n</figure>\n'
        '<aside id="card" tabindex="-1" aria-label="The selected model" aria-live="polite"></aside>\n</div>'
    )
