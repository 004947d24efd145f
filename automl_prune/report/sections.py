"""The sections of the page, in its order: each turns its part of the data into HTML, or says why it is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from automl_prune.costs import Cost
from automl_prune.report import figures
from automl_prune.report.data import MAX_FAILED_TRIALS_NAMED, Missing, ReportData, TrialRow
from automl_prune.report.hover import keep
from automl_prune.report.markup import Cell, Row, command, figure, missing, paragraph, section, table, text
from automl_prune.report.table import FrontRow
from automl_prune.report.words import ABSENT, cost_label, duration, percent, plural, plus_minus, short, signed


def answer(data: ReportData) -> str:
    """The chosen model, what it loses, and the verdict on the search."""
    found, context = data.answer, data.context
    parts = [paragraph(found.headline, "headline")]
    if found.row is not None and found.score is not None:
        tiles = [
            (f"{context.metric.name}, {found.split}", plus_minus(context.metric, found.score), _seeds(found.row)),
            *(
                (cost_label(name), percent(cost.ratio), f"{short(cost.value)} of {short(cost.dense)}")
                for name, cost in found.row.costs.items()
            ),
        ]
        for title, other in (("against the dense model", found.dense), ("against the best baseline", found.baseline)):
            if other is not None:
                unit = " points" if context.metric.percent else ""
                sure = {True: "significant", False: "not significant", None: "no interval"}[other.significant]
                note = sure if other.trial is None else f"{other.name}, {sure}"
                tiles.append((f"gain {title}", signed(context.metric, other.gain.value) + unit, note))
        parts.append(_tiles(tiles))
    parts.append(paragraph(found.verdict))
    notes = "".join(f"<li>{text(caveat)}</li>" for caveat in found.caveats)
    body = "".join(parts) + f'<ul class="notes">{notes}</ul>'
    return f'<section id="answer" aria-label="The answer" class="answer">\n{body}\n</section>'


def finalists(data: ReportData) -> str:
    """The fine-tuned models on the test split: figure and table."""
    if isinstance(data.finalists, Missing):
        return section("finalists", "Finalists", missing(data.finalists.reason))
    context, rows = data.context, data.finalists
    runs = max(row.val.seeds for row in rows)
    caption = (
        f"{plural(len(rows), 'finalist')} under the budget, fine-tuned with up to {plural(runs, 'seed')} and scored on "
        f"the test split; bars are 95 % intervals (seeds and the finite test set), where known. "
        f"{plural(sum(row.on_front for row in rows), 'filled mark')} on the front by validation score; the others are "
        f"dominated. The dotted line is the dense model's {context.metric.show(context.dense_test.value)}; "
        f"double-click the figure to see the model itself."
    )
    drawing = figures.finalists_figure(data, rows)
    names = "± is half the 95 % interval; the chosen model is marked."
    return section(
        "finalists", "Finalists", figure("figure-finalists", drawing, caption), paragraph(names, "soft"),
        _rows_table(data, rows, "Finalists"),
    )  # fmt: skip


def search(data: ReportData) -> str:
    """All completed trials on the validation split: figure and, without finalists, the front's table."""
    if not any(row.category for row in data.trials):
        return section("search", "Search", missing("No trial has completed, so there is nothing to draw."))
    counts = {c: sum(row.category == c for row in data.trials) for c in ("front", "baseline", "search", "over budget")}
    context = data.context
    caption = (
        f"Validation {context.metric.name} against {cost_label(context.cost)} of all completed trials, before the "
        f"finalists' longer fine-tuning: {counts['front']} on the front, {counts['search']} further search trials, "
        f"{counts['baseline']} further baselines, {counts['over budget']} over budget."
    )
    if figures.score_view(data) is not None:
        caption += " A few far worse trials lie outside the first view; double-click to see all."
    parts = [figure("figure-search", figures.search_figure(data), caption)]
    if isinstance(data.finalists, Missing) and not isinstance(data.front, Missing):
        parts.append(_rows_table(data, data.front, "Front of the search"))
    elif isinstance(data.front, Missing):
        parts.append(missing(data.front.reason))
    return section("search", "Search", *parts)


def widths(data: ReportData) -> str:
    """Kept widths of the front's models: heat map and the same as a table."""
    if isinstance(data.front, Missing):
        return section("widths", "Kept widths", missing(data.front.reason))
    dense = data.context.group_widths
    if not dense:
        return section("widths", "Kept widths", missing("The model has no prunable channel group."))
    caption = (
        f"Channels kept in each of {plural(len(dense), 'group')} by the front's models, cheapest first; bright groups "
        "keep most of their channels."
    )
    heads = ["group", "dense", *(f"trial {row.trial}" for row in data.front)]
    rows = [
        Row([
            Cell(name), _number(width, str(width)),
            *(_number(kept, str(kept)) for kept in (keep(r.candidate, name, width) for r in data.front)),
        ])
        for name, width in dense.items()
    ]  # fmt: skip
    drawing = figures.widths_figure(data, data.front)
    listing = f"<details>\n<summary>The same as a table</summary>\n{table('Kept widths', heads, rows)}\n</details>"
    return section("widths", "Kept widths", figure("figure-widths", drawing, caption, wide=True), listing)


def history(data: ReportData) -> str:
    """Growth of the dominated area over the trials, against the baselines."""
    title = "Search history"
    if isinstance(data.history, Missing):
        return section("history", title, missing(data.history.reason))
    past, context = data.history, data.context
    final = past.values[-1]
    if past.baselines is None:
        level = "No baseline is under the budget at this rung."
    elif past.baselines > 0 and final > past.baselines:
        first = next(t for t, v in zip(past.trials, past.values, strict=True) if v > past.baselines)
        level = f"The baselines alone reach {percent(past.baselines)}; trial {first} is the first to pass that."
    else:
        level = f"The baselines alone reach {percent(past.baselines)}; the search adds nothing to them."
    caption = (
        f"Area dominated by the search's front (hypervolume), in per cent of the rectangle from the reference point "
        f"({context.metric.name} {context.metric.show(past.reference[0])}, the worst of these trials; the dense "
        f"model's {cost_label(context.cost)}) to the dense model's score at no cost. It ends at {percent(final)}. "
        f"{level}"
    )
    return section("history", title, figure("figure-history", figures.history_figure(data, past), caption))


def trials(data: ReportData) -> str:
    """Every trial, sortable."""
    if not data.trials:
        return section("trials", "Trials", missing("No trial has been started."))
    context = data.context
    heads = ["trial", "status", "origin", f"{context.metric.name} (val)", *map(cost_label, context.dense_costs)]
    heads += ["rung", "criterion × groups", "time", "remark"]
    listing = table(
        "Trials", heads, [_trial(data, row) for row in data.trials], sortable=True, tall=len(data.trials) > 20
    )
    note = (
        "Click a column's title to sort; the answer's trial is marked. Scores are on the validation split, before any "
        "finalist's fine-tuning."
    )
    return section("trials", "Trials", paragraph(note, "soft noprint"), listing)


def failures(data: ReportData) -> str:
    """Failed trials by reason."""
    if not data.failures:
        return section("failures", "Failures", paragraph("No trial failed."))
    rows = []
    for failure in data.failures:
        named = ", ".join(str(number) for number in failure.trials[:MAX_FAILED_TRIALS_NAMED])
        more = len(failure.trials) - MAX_FAILED_TRIALS_NAMED
        tail = f" and {more} more" if more > 0 else ""
        rows.append(Row([Cell(failure.reason, kind="text"), _number(len(failure.trials)), Cell(named + tail)]))
    return section("failures", "Failures", table("Failures", ["reason", "count", "trials"], rows))


def protected(data: ReportData) -> str:
    """Channels that are not prunable, and why."""
    if not data.context.skipped:
        return section("protected", "Protected channels", paragraph("Every channel of the model is prunable."))
    rows = [
        Row([Cell(name), _number(width), Cell(reason, kind="text")]) for name, width, reason in data.context.skipped
    ]
    listing = table("Protected channels", ["layer", "channels", "why it is not pruned"], rows)
    return section("protected", "Protected channels", listing)


def costs(data: ReportData) -> str:
    """What the search cost, by stage."""
    title = "Costs of the search"
    if not data.stages:
        return section("costs", title, missing("Nothing has been computed yet."))
    rows = [
        Row([
            Cell(stage.name), _number(stage.runs), _number(stage.steps),
            _number(stage.seconds, duration(stage.seconds)),
            _number(stage.seconds / stage.runs, duration(stage.seconds / stage.runs)),
        ])
        for stage in data.stages
    ]  # fmt: skip
    total = f"Together {duration(sum(stage.seconds for stage in data.stages))} of worker time"
    if data.wall_seconds is not None:
        total += f"; the trials took {duration(data.wall_seconds)} from first start to last end"
    if data.workers:
        total += f", on {plural(data.workers, 'worker')}"
    heads = ["stage", "runs", "optimiser steps", "time", "per run"]
    return section("costs", title, table(title, heads, rows), paragraph(f"{total}."))


def provenance(data: ReportData) -> str:
    """Environment, configuration, budget."""
    limits = ", ".join(
        f"{cost_label(name)} at most {short(limit)} ({percent(limit / data.context.dense_costs[name])} of dense)"
        for name, limit in data.context.limits.items()
        if name in data.context.dense_costs
    )
    rows = [Row([Cell(name), Cell(value, kind="text")]) for name, value in data.context.environment.items()]
    environment = table("Environment", ["what", "value"], rows) if rows else missing("Not recorded.")
    return section(
        "provenance", "Configuration and environment", paragraph(f"Budget: {limits}."),
        f"<h3>Configuration</h3>\n<pre><code>{text(data.config_text)}</code></pre>",
        f"<h3>Environment</h3>\n{environment}",
    )  # fmt: skip


def commands(data: ReportData) -> str:
    """Exact commands to reproduce, resume and export."""
    lines = (command(entry.purpose, entry.line) for entry in data.commands)
    return section("commands", "Commands", *lines)


ORDER: tuple[tuple[str, str, Callable[[ReportData], str]], ...] = (
    ("answer", "Answer", answer),
    ("finalists", "Finalists", finalists),
    ("search", "Search", search),
    ("widths", "Kept widths", widths),
    ("history", "History", history),
    ("trials", "Trials", trials),
    ("failures", "Failures", failures),
    ("protected", "Protected", protected),
    ("costs", "Costs", costs),
    ("provenance", "Configuration", provenance),
    ("commands", "Commands", commands),
)
"""Identifier, title in the navigation, and section, in the order of the page."""


def _rows_table(data: ReportData, rows: tuple[FrontRow, ...], caption: str) -> str:
    metric = data.context.metric
    heads = ["trial", "origin", *map(cost_label, data.context.dense_costs)]
    heads += [f"{metric.name} (val)", f"{metric.name} (test)", "seeds", "note", "criterion × groups"]
    chosen = data.answer.row.trial if data.answer.row else None
    lines = []
    for row in rows:
        notes = [
            *(["chosen"] if row.trial == chosen else []), *(["knee"] if row.knee else []),
            *([] if row.on_front else ["dominated"]),
        ]  # fmt: skip
        cells = [_number(row.trial), Cell(row.origin), *_costs(data, row.costs)]
        cells.append(_number(row.val.value, plus_minus(metric, row.val)))
        cells.append(_number(row.test.value, plus_minus(metric, row.test)) if row.test else _number(None))
        cells += [_number(row.val.seeds), Cell(", ".join(notes)), Cell(row.criteria, kind="text")]
        lines.append(Row(cells, "chosen" if row.trial == chosen else "" if row.on_front else "faint"))
    return table(caption, heads, lines, sortable=True)


def _trial(data: ReportData, row: TrialRow) -> Row:
    trial, metric = row.trial, data.context.metric
    evaluation = trial.evaluation
    remark = trial.reason or (f"attempt {trial.attempt}" if trial.attempt > 1 else "")
    cells = [
        _number(trial.number), Cell(row.status), Cell(trial.origin),
        _number(evaluation.score.value, metric.show(evaluation.score.value)) if evaluation else _number(None),
        *_costs(data, evaluation.costs if evaluation else {}), _number(evaluation.rung if evaluation else None),
        Cell(row.criteria or ABSENT, kind="text"), _number(row.seconds, _time(row.seconds)), Cell(remark, kind="text"),
    ]  # fmt: skip
    chosen = data.answer.row is not None and data.answer.row.trial == trial.number
    return Row(cells, "chosen" if chosen else "faint" if row.category in (None, "over budget", "other rung") else "")


def _costs(data: ReportData, costs: Mapping[str, Cost]) -> list[Cell]:
    """One cell per cost of the dense model, with its fraction of it."""
    found = [costs.get(name) for name in data.context.dense_costs]
    return [_number(c.value, f"{short(c.value)} ({percent(c.ratio)})") if c else _number(None) for c in found]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else duration(seconds)


def _number(value: float | None, shown: str | None = None) -> Cell:
    """A number's cell: sorted by its full precision; an absent one is a dash and sorts last."""
    if value is None:
        return Cell(ABSENT, "", "number")
    return Cell(f"{value:,}".replace(",", " ") if shown is None else shown, value, "number")


def _seeds(row: FrontRow) -> str:
    return f"mean of {plural(row.val.seeds, 'seed')}" if row.test else "one evaluation"


def _tiles(tiles: list[tuple[str, str, str]]) -> str:
    cells = (
        f'<div><dt>{text(label)}</dt><dd>{text(value)}</dd><dd class="note">{text(note)}</dd></div>'
        for label, value, note in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'
