from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.report.summary import write_summary
from automl_prune.report.table import front_table
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_the_summary_holds_answer_front_and_commands(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    text = write_summary(record, tmp_path / "summary.md").read_text(encoding="utf-8")
    table = [line for line in text.splitlines() if line.startswith("|")]
    rows = front_table(record)
    assert len(table) == 2 + len(rows) + 1, "head, rule, a line per model, the dense model"
    assert {line.count("|") for line in table} == {7}
    for row, line in zip(rows, table[2:], strict=False):
        assert f"| {row.trial} |" in line.replace("**", "")
    assert text.count("**") == 4, "the headline, and the chosen trial"
    assert "95 % interval" in text
    assert f"automl-prune search {tmp_path}/config.yaml" in text
    assert text.count("```") % 2 == 0


@pytest.mark.parametrize(("case", "feasible"), [({}, True), ({"over_budget": True}, False), ({"trials": 0}, False)])
def test_a_summary_of_whatever_state(
    make_record: MakeRecord, tmp_path: Path, case: dict[str, object], feasible: bool
) -> None:
    record = make_record(finalists=0, **case)
    text = write_summary(record, tmp_path / "summary.md").read_text(encoding="utf-8")
    assert ("| dense |" in text) == feasible
    assert ("so there is no front" in text) != feasible


def test_names_are_no_markup(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    trials = tuple(replace(t, origin="<img src=x>|\n# x" if t.origin != "search" else "search") for t in record.trials)
    text = write_summary(replace(record, trials=trials), tmp_path / "summary.md").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "\n# x" not in text
