"""Tables of models: the cells and rows that several sections share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from automl_prune.costs import Cost
from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, number, table
from automl_prune.report.measured import cost_beside_dense, remarks
from automl_prune.report.table import FrontRow, shown_costs
from automl_prune.report.words import cost_label, cost_value, factor, percent, plus_minus


def cost_cells(names: Iterable[str], costs: Mapping[str, Cost]) -> list[Cell]:
    """One cell per metric: the cost, its fraction of the dense model's, and what is to be remarked."""
    found = [costs.get(name) for name in names]
    return [number(cost.value, cost_beside_dense(cost)) if cost else number(None) for cost in found]


def efficiency_cell(row: FrontRow) -> Cell:
    """A model's latency speed-up as a share of its MACs speed-up."""
    return number(row.efficiency, factor(row.efficiency))


def trial_cell(number: int, *, card: bool = True) -> Cell:
    """A trial's number; a click opens its card, where it has one."""
    return Cell(str(number), number, "number", opens=number if card else None)


def _bare(cost: Cost | None) -> Cell:
    return (
        number(cost.value, f"{cost_value(cost.metric, cost.value)} ({percent(cost.ratio)})") if cost else number(None)
    )


def models_table(data: ReportData, rows: tuple[FrontRow, ...], caption: str) -> str:
    """A sortable table of models, the chosen one marked; what is to be remarked of a latency stands in the note."""
    metric = data.context.metric
    names = shown_costs(data.context, rows)
    timed = any(row.latency is not None for row in rows)
    heads = ["trial", "origin", f"{metric.name} (test)", f"{metric.name} (val)", "seeds", *map(cost_label, names)]
    heads += [*(["efficiency"] if timed else []), "note", "criterion × groups"]
    chosen = data.answer.row.trial if data.answer.row else None
    lines = []
    for row in rows:
        notes = [
            *(["chosen"] if row.trial == chosen else []), *(["knee"] if row.knee else []),
            *([] if row.on_front else ["dominated"]), *(remarks(row.latency) if row.latency else []),
        ]  # fmt: skip
        test = number(row.test.value, plus_minus(metric, row.test)) if row.test else number(None)
        cells = [trial_cell(row.trial), Cell(row.origin), test]
        cells += [number(row.val.value, plus_minus(metric, row.val)), number(row.val.seeds)]
        cells += [*map(_bare, map(row.costs.get, names)), *([efficiency_cell(row)] if timed else [])]
        cells += [Cell(", ".join(notes)), Cell(row.criteria, kind="text")]
        lines.append(Row(cells, "chosen" if row.trial == chosen else "" if row.on_front else "faint"))
    return table(caption, heads, lines, sortable=True)
