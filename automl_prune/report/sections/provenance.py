"""Configuration, budget and environment."""

from __future__ import annotations

import json
from collections.abc import Mapping

from automl_prune.report.data import ReportData
from automl_prune.report.markup import Cell, Row, missing, paragraph, table, text
from automl_prune.report.words import cost_label, cost_value, percent


def render(data: ReportData) -> str:
    """Environment, configuration, budget."""
    limits = ", ".join(
        f"{cost_label(name)} at most {cost_value(name, limit)} "
        f"({percent(limit / data.context.dense_costs[name])} of dense)"
        for name, limit in data.context.limits.items()
        if name in data.context.dense_costs
    )
    rows = [Row([Cell(name), Cell(value, kind="text")]) for name, value in data.context.environment.items()]
    environment = table("Environment", ["what", "value"], rows) if rows else missing("Not recorded.")
    return (
        paragraph(f"Budget: {limits}.")
        + f"<h3>Configuration</h3>\n<pre><code>{text(_config_text(data.context.config))}</code></pre>"
        + f"<h3>Environment</h3>\n{environment}"
    )


def _config_text(config: Mapping[str, object]) -> str:
    """The resolved configuration as indented JSON (which is YAML too)."""
    return json.dumps(_plain(config), indent=2, ensure_ascii=False, default=str)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
