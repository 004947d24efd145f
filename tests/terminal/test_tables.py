from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from automl_prune.costs import Cost
from automl_prune.report.table import FrontRow, front_table
from automl_prune.study.record import StudyContext
from automl_prune.terminal import Terminal
from tests.report.conftest import make


def study() -> tuple[list[FrontRow], StudyContext]:
    """A front whose models have a third cost, a latency above the dense model's, and long origins."""
    record = make()
    dense = {**record.context.dense_costs, "memory": 4.2e6}
    memory = {"memory": Cost("memory", 2.1e6, 4.2e6), "latency": Cost("latency", 0.0021, 0.002)}
    origin = "uniform geometric_median at 70% of the budget"
    rows = [replace(row, origin=origin, costs={**row.costs, **memory}) for row in front_table(record)]
    return rows, replace(record.context, dense_costs=dense)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_number_of_a_front_is_cut_or_broken_at_any_usual_width(width: int) -> None:
    rows, context = study()
    file = io.StringIO()
    Terminal(Console(file=file, width=width)).show_front(rows, context)
    text = file.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    for row in rows:
        assert row.test is not None
        line = next(line for line in text.splitlines() if f"{100 * row.test.value:.2f} ±" in line)
        assert f"{100 * row.val.value:.2f} ±" in line
        assert line.rstrip().rstrip("│ ").endswith("%")
        assert f"{row.efficiency:.2f}" in line
    assert all(word in text for word in ("slower", "than", "dense"))
