from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.report.data import collect
from automl_prune.report.sections.commands import commands
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_commands_survive_a_shell(make_record: MakeRecord) -> None:
    run_dir = Path("runs/it's a run; rm -rf")
    lines = commands(collect(make_record(), run_dir))
    assert lines[0].line == "export AUTOML_PRUNE_STORAGE=URL", "its study lies nowhere else"
    shell = [command.line for command in lines if command.line.startswith("automl-prune")]
    assert {shlex.split(line)[1] for line in shell} == {"search", "status", "front", "report", "retarget", "export"}
    for line in shell:
        assert any(word.startswith(str(run_dir)) for word in shlex.split(line))
    (python,) = (command.line for command in lines if "load_pruned" in command.line)
    compile(python, "<command>", "exec")


def test_a_study_in_its_run_directory_needs_no_database(make_record: MakeRecord, tmp_path: Path) -> None:
    (tmp_path / "study.journal").touch()
    assert not any("AUTOML_PRUNE_STORAGE" in command.line for command in commands(collect(make_record(), tmp_path)))


@pytest.mark.parametrize(("limit", "said"), [(0.5, "0.4"), (1.0, "0.8"), (3.0, "0.8")])
def test_the_budget_of_the_examples_is_a_fraction_of_the_dense_model(
    limit: float, said: str, make_record: MakeRecord
) -> None:
    record = make_record()
    cost = record.context.cost
    limits = {**record.context.limits, cost: limit * record.context.dense_costs[cost]}
    loose = replace(record, context=replace(record.context, limits=limits))
    lines = [each.line for each in commands(collect(loose, Path("runs/x"))) if "--budget" in each.line]
    assert len(lines) == 2
    assert all(line.endswith(f"--budget {cost}={said}") for line in lines)
