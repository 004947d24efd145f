from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automl_prune.report.data import Missing, ReportData, collect
from automl_prune.report.sections.history import History, growth, history_figure
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def history_of(data: ReportData) -> History | Missing:
    return growth(data.record)


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


def test_history_figure_equals_the_history(make_record: MakeRecord) -> None:
    history = history_of(collect(make_record(), Path("runs/x")))
    assert isinstance(history, History)
    line, _, level = history_figure(history).data
    assert list(line.y) == [100 * value for value in history.values]
    assert list(line.x) == list(history.trials)
    assert history.baselines is not None
    assert set(level.y) == {100 * history.baselines}


def test_history_is_of_the_scores_without_training(make_record: MakeRecord) -> None:
    record = make_record()
    history = history_of(collect(record, Path("runs/x")))
    assert isinstance(history, History)
    dense = record.context.dense_val.value
    assert history.reference == (dense / 2, record.context.dense_costs["macs"])
    first = record.trials[0].evaluation
    assert first is not None
    score, cost = first.rungs[0].score.value, first.costs["macs"].ratio
    assert history.values[0] == pytest.approx((score - dense / 2) * (1 - cost) / (dense / 2))
