"""The answer: the chosen model, what it loses, and the verdict on the search."""

from __future__ import annotations

from automl_prune.report.data import ReportData
from automl_prune.report.markup import paragraph, text
from automl_prune.report.measured import remarks
from automl_prune.report.table import FrontRow
from automl_prune.report.words import cost_label, cost_value, percent, plural, plus_minus, signed


def render(data: ReportData) -> str:
    """The chosen model, what it loses, and the verdict on the search."""
    found, context = data.answer, data.context
    parts = [paragraph(found.headline, "headline")]
    if found.row is not None and found.score is not None:
        tiles = [
            (f"{context.metric.name}, {found.split}", plus_minus(context.metric, found.score), _seeds(found.row)),
            *(
                (
                    cost_label(name),
                    percent(cost.ratio),
                    ", ".join([f"{cost_value(name, cost.value)} of {cost_value(name, cost.dense)}", *remarks(cost)]),
                )
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
    return f'<div class="answer">\n{body}\n</div>'


def _seeds(row: FrontRow) -> str:
    return f"mean of {plural(row.val.seeds, 'seed')}" if row.test else "one evaluation"


def _tiles(tiles: list[tuple[str, str, str]]) -> str:
    cells = (
        f'<div><dt>{text(label)}</dt><dd>{text(value)}</dd><dd class="note">{text(note)}</dd></div>'
        for label, value, note in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'
