"""Latency in the report: the error of predictions, what was cut beside what it saved, and what is slower than dense."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automl_prune.costs import Cost
from automl_prune.report.data import collect
from automl_prune.report.sections import latency
from automl_prune.report.words import SLOWER
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


def test_models_slower_than_dense_are_flagged(make_record: Callable[..., StudyRecord], tmp_path: Path) -> None:
    page = latency.render(collect(_timed(make_record(), 30.0, 1.0), tmp_path))
    assert f"are {SLOWER}" in page or f"is {SLOWER}" in page
