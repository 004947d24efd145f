from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.report.data import Missing, ReportData, collect
from automl_prune.report.sections.commands import commands
from automl_prune.report.sections.costs import stages, wall_seconds
from automl_prune.report.sections.failures import failures
from automl_prune.report.sections.history import History, growth
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def history_of(data: ReportData) -> History | Missing:
    return growth(data.record, data.search_front)


def test_history_grows_and_starts_from_the_baselines(make_record: MakeRecord) -> None:
    record = make_record()
    history = history_of(collect(record, Path("runs/x")))
    assert isinstance(history, History)
    assert list(history.values) == sorted(history.values)
    assert history.baselines is not None
    at = dict(zip(history.trials, history.values, strict=True))
    assert at[4] == pytest.approx(history.baselines), "trials 0 to 4 are all the baselines"
    assert history.values[-1] > history.baselines
    assert 17 not in history.trials, "failed trials have no score"
    assert all(0 <= value <= 1 for value in history.values)


def test_stages_add_up(make_record: MakeRecord) -> None:
    record = make_record()
    by_name = {stage.name: stage for stage in stages(record)}
    done = [trial.evaluation for trial in record.trials if trial.evaluation]
    assert by_name["Trials, short fine-tuning"].seconds == sum(e.seconds for e in done)
    assert by_name["Failed trials"].seconds == 12
    runs = [run for finalist in record.finalists for run in finalist.runs]
    assert by_name["Finalists, long fine-tuning"].steps == sum(run.steps for run in runs)
    assert wall_seconds(record) == 39 * 14 + 12.5


def test_every_trial_has_a_status(make_record: MakeRecord) -> None:
    data = collect(make_record(), Path("runs/x"))
    status = {row.trial.number: (row.status, row.category) for row in data.trials}
    assert len(status) == 40
    assert status[12] == ("over budget", "over budget")
    assert status[17] == ("failed", None)
    assert {n for n, (_, category) in status.items() if category == "front"} == set(data.search_front.trials)


def test_failures_are_grouped_by_reason(make_record: MakeRecord) -> None:
    record = make_record()
    trials = [replace(t, reason=None) if t.number == 23 else t for t in record.trials]
    found = failures(replace(record, trials=tuple(trials)))
    assert {failure.trials for failure in found} == {(17,), (23,)}
    assert any("no reason recorded" in failure.reason for failure in found)


def test_commands_survive_a_shell(make_record: MakeRecord) -> None:
    run_dir = Path("runs/it's a run; rm -rf")
    lines = commands(collect(make_record(), run_dir))
    shell = [command.line for command in lines if command.line.startswith("automl-prune")]
    assert {shlex.split(line)[1] for line in shell} == {"search", "status", "front", "report", "export"}
    for line in shell:
        assert any(word.startswith(str(run_dir)) for word in shlex.split(line))
    (python,) = (command.line for command in lines if "load_pruned" in command.line)
    compile(python, "<command>", "exec")


@pytest.mark.parametrize("kind", ["over_budget", "fail_all"])
def test_missing_parts_say_why(make_record: MakeRecord, kind: str) -> None:
    data = collect(make_record(finalists=0, **{kind: True}), Path("runs/x"))
    for part in (data.front, data.finalists, history_of(data)):
        assert isinstance(part, Missing)
        assert part.reason.endswith(".")


def test_unfinished_search_says_so(make_record: MakeRecord) -> None:
    record = make_record()
    running = replace(record.trials[-1], state="running", evaluation=None, feasible=None, finished=None)
    data = collect(replace(record, trials=(*record.trials[:-1], running)), Path("runs/x"))
    assert "1 running" in data.progress
    assert data.progress.endswith("can be resumed.")
    assert not collect(record, Path("runs/x")).progress.endswith("resumed.")


def test_rungs_are_not_mixed(make_record: MakeRecord) -> None:
    record = make_record()
    trials = list(record.trials)
    for number in (6, 7):
        evaluation = trials[number].evaluation
        assert evaluation is not None
        trials[number] = replace(trials[number], evaluation=replace(evaluation, rung=0))
    data = collect(replace(record, trials=tuple(trials), finalists=()), Path("runs/x"))
    assert [row.category for row in data.trials if row.trial.number in (6, 7)] == ["other rung"] * 2
    history = history_of(data)
    assert isinstance(history, History)
    assert not {6, 7} & set(history.trials)
    assert {stage.name for stage in stages(data.record)} >= {"Trials, no training", "Trials, short fine-tuning"}
