"""Tables of models: the cells and rows that several sections share."""

from __future__ import annotations

from collections.abc import Mapping

from automl_prune.costs import Cost
from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, number, table
from automl_prune.report.table import FrontRow
from automl_prune.report.words import cost_label, cost_value, percent, plus_minus


def cost_cells(data: ReportData, costs: Mapping[str, Cost]) -> list[Cell]:
    """One cell per cost of the dense model, with its fraction of it."""
    found = [costs.get(name) for name in data.context.dense_costs]
    return [
        number(c.value, f"{cost_value(c.metric, c.value)} ({percent(c.ratio)})") if c else number(None) for c in found
    ]


def trial_cell(number: int, *, card: bool = True) -> Cell:
    """A trial's number; a click opens its card, where it has one."""
    return Cell(str(number), number, "number", opens=number if card else None)


def models_table(data: ReportData, rows: tuple[FrontRow, ...], caption: str) -> str:
    """A sortable table of models, the chosen one marked."""
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
        cells = [trial_cell(row.trial), Cell(row.origin), *cost_cells(data, row.costs)]
        cells.append(number(row.val.value, plus_minus(metric, row.val)))
        cells.append(number(row.test.value, plus_minus(metric, row.test)) if row.test else number(None))
        cells += [number(row.val.seeds), Cell(", ".join(notes)), Cell(row.criteria, kind="text")]
        lines.append(Row(cells, "chosen" if row.trial == chosen else "" if row.on_front else "faint"))
    return table(caption, heads, lines, sortable=True)
