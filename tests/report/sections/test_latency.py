"""Latency in the report: the error of predictions, what was cut beside what it saved, and what is slower than dense."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automl_prune.costs import Cost
from automl_prune.report.cards import cards
from automl_prune.report.data import collect
from automl_prune.report.measured import NOISY, SLOWER
from automl_prune.report.sections import front, latency
from automl_prune.report.summary import summary as summary_of
from automl_prune.report.table import front_table
from automl_prune.study.record import StudyRecord


def _timed(record: StudyRecord, ratio: float, off: float) -> StudyRecord:
    """The record with latencies of ``ratio`` times the MACs' share, predicted too low by a factor of ``off``."""
    trials = []
    for trial in record.trials:
        evaluation = trial.evaluation
        if evaluation is not None:
            value = ratio * evaluation.costs["macs"].ratio * 0.002
            cost = Cost("latency", value, 0.002, predicted=value * off)
            evaluation = replace(evaluation, costs={**evaluation.costs, "latency": cost})
        trials.append(replace(trial, evaluation=evaluation))
    context = replace(record.context, dense_costs={**record.context.dense_costs, "latency": 0.002})
    return replace(record, trials=tuple(trials), context=context)


def test_without_measurements_it_says_so(make_record: Callable[..., StudyRecord], tmp_path: Path) -> None:
    assert "was not measured" in latency.render(collect(make_record(), tmp_path))


def test_predicted_against_measured_and_the_efficiency(make_record: Callable[..., StudyRecord], tmp_path: Path) -> None:
    page = latency.render(collect(_timed(make_record(), 1.25, 0.9), tmp_path))
    assert "mean error 10.0 %, rank correlation 1.000" in page
    assert "0.80" in page, "a speed-up of 1 / 1.25 of that in MACs"
    assert SLOWER not in page


def test_without_a_latency_budget_the_exported_models_are_shown(
    make_record: Callable[..., StudyRecord], tmp_path: Path
) -> None:
    record = make_record()
    trial = front_table(record)[0].trial
    folder = tmp_path / "models" / str(trial)
    folder.mkdir(parents=True)
    summary = {"seconds": 0.003, "dense_seconds": 0.004, "ratio": 0.75, "interval": [0.7, 0.8], "noisy": "a fan"}
    (folder / "manifest.json").write_text(json.dumps({"latency": summary}))
    data = collect(record, tmp_path)
    page = latency.render(data)
    assert "The search did not ask for latency" in page
    assert page.count('class="opens"') == 1, "the one that was exported"
    assert "25.0 %" in page
    assert "20.0 % to 30.0 %" in page
    assert f"{NOISY}: a fan" in page
    evaluation = record.trials[trial].evaluation
    assert evaluation is not None
    efficiency = f"{evaluation.costs['macs'].ratio / 0.75:.2f}"
    assert efficiency in page
    assert "efficiency" in front.render(data)
    assert dict(cards(data)[trial]["facts"])["efficiency"] == efficiency
    assert "3 ms (75.0 %, noisy)" in summary_of(data)


def test_models_slower_than_dense_are_flagged(make_record: Callable[..., StudyRecord], tmp_path: Path) -> None:
    page = latency.render(collect(_timed(make_record(), 30.0, 1.0), tmp_path))
    assert f"are {SLOWER}" in page or f"is {SLOWER}" in page
    assert page.count(SLOWER) > 1, "in the table and below it"
