"""summary.md: the answer in Markdown, for pull requests and issue trackers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_prune.files import write_text
from automl_prune.report.data import Missing, ReportData, collect
from automl_prune.report.estimate import Estimate
from automl_prune.report.measured import cost_beside_dense
from automl_prune.report.sections.commands import commands
from automl_prune.report.table import FrontRow, shown_costs
from automl_prune.report.words import ABSENT, cost_label, cost_value, factor, plus_minus
from automl_prune.study.record import StudyRecord


def write_summary(record: StudyRecord, path: Path) -> Path:
    """Write the summary of a study atomically into its run directory; returns ``path``."""
    write_text(path, summary(collect(record, path.parent)))
    return path


def summary(data: ReportData) -> str:
    """The answer, the front as a table, and the commands."""
    answer = data.answer
    parts = [
        f"## Pruning: {_plain(data.context.name)}",
        f"**{_plain(answer.headline)}** {_plain(answer.verdict)}",
        _plain(data.progress),
        "\n".join(f"- {_plain(caveat)}" for caveat in answer.caveats),
        data.front.reason if isinstance(data.front, Missing) else _table(data, data.front),
        "\n\n".join(f"{entry.purpose}:\n\n{_code(entry.line)}" for entry in commands(data)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(data: ReportData, rows: Sequence[FrontRow]) -> str:
    context, metric = data.context, data.context.metric
    names = shown_costs(context, rows)
    timed = any(row.latency is not None for row in rows)
    heads = ["trial", "origin", *map(cost_label, names), *(["efficiency"] if timed else [])]
    heads += [f"{metric.name} (val)", f"{metric.name} (test)"]
    lines = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    chosen = data.answer.row.trial if data.answer.row else None
    for row in rows:
        mark = "**" if row.trial == chosen else ""
        scores = [plus_minus(metric, row.val), plus_minus(metric, row.test) if row.test else ABSENT]
        costs = [cost_beside_dense(cost) if (cost := row.costs.get(name)) else ABSENT for name in names]
        costs += [factor(row.efficiency)] if timed else []
        lines.append([f"{mark}{row.trial}{mark}", row.origin, *costs, *scores])
    dense = [plus_minus(metric, Estimate.of([score])) for score in (context.dense_val, context.dense_test)]
    costs = [cost_value(name, context.dense_costs[name]) if name in context.dense_costs else ABSENT for name in names]
    lines.append(["dense", "", *costs, *([ABSENT] if timed else []), *dense])
    table = "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)
    return f"{table}\n\n± is half the 95 % interval; the chosen model is bold."


def _plain(text: str) -> str:
    """Names from a configuration must not become markup, a table cell, or a line of their own."""
    return " ".join(text.replace("<", "&lt;").replace("|", "\\|").split())


def _code(line: str) -> str:
    fence = "```" if "```" not in line else "~~~~"
    return f"{fence}\n{line}\n{fence}"
