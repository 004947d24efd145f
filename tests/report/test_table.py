from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from automl_prune.costs import Cost
from automl_prune.errors import StudyError
from automl_prune.report.table import finalist_table, front_table, search_points, trial_row, write_front
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_default_front_is_the_finalists(make_record: MakeRecord) -> None:
    record = make_record()
    rows = front_table(record)
    assert rows, "the fixture has feasible finalists"
    finalists = {finalist.trial: finalist for finalist in record.finalists}
    for row in rows:
        runs = finalists[row.trial].runs
        assert row.rung == 2
        assert row.val.value == pytest.approx(np.mean([run.val.value for run in runs]))
        assert row.test is not None
        assert row.test.value == pytest.approx(np.mean([run.test.value for run in runs]))
        assert row.test.std == pytest.approx(np.std([run.test.value for run in runs], ddof=1))
    values = [row.val.value for row in rows]
    assert values == sorted(values)
    costs = [row.costs["macs"].value for row in rows]
    assert costs == sorted(costs)


def test_search_front_knows_no_test_score(make_record: MakeRecord) -> None:
    record = make_record()
    rows = front_table(record, "search")
    assert all(row.test is None and row.val.seeds == 1 for row in rows)
    assert rows == front_table(replace(record, finalists=()))
    feasible = [point for point in search_points(record) if point.feasible]
    for row in rows:
        cost, score = row.costs["macs"].value, row.val.value
        assert not any(p.cost <= cost and p.score > score for p in feasible)


def test_lower_is_better_turns_the_front(make_record: MakeRecord) -> None:
    rows = front_table(make_record(regression=True), "search")
    values = [row.val.value for row in rows]
    assert len(values) > 2
    assert values == sorted(values, reverse=True)


def test_finalist_table_keeps_dominated_finalists(make_record: MakeRecord) -> None:
    record = make_record()
    rows = finalist_table(record)
    assert {row.trial for row in rows} == {finalist.trial for finalist in record.finalists}
    assert [row for row in rows if row.on_front] == front_table(record)
    assert any(not row.on_front for row in rows)


def test_files_hold_the_rows(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record()
    csv, listing = write_front(record, tmp_path)
    rows = front_table(record)
    frame = pd.read_csv(csv)
    assert list(frame["trial"]) == [row.trial for row in rows]
    assert list(frame["macs"]) == [row.costs["macs"].value for row in rows]
    assert frame["macs_ratio"].to_numpy() == pytest.approx([row.costs["macs"].ratio for row in rows])
    assert frame["accuracy_test"].to_numpy() == pytest.approx([row.test.value for row in rows if row.test])
    assert frame["accuracy_test_se"].to_numpy() == pytest.approx([row.test.standard_error for row in rows if row.test])
    assert list(frame["seeds"]) == [3] * len(rows)
    assert frame["knee"].sum() <= 1
    loaded = json.loads(listing.read_text())
    assert loaded == [row.flat("accuracy") for row in rows]
    assert list(loaded[0]) == list(frame.columns)


def test_absent_values_stay_absent_in_files(make_record: MakeRecord, tmp_path: Path) -> None:
    csv, listing = write_front(make_record(finalists=0), tmp_path)
    assert pd.read_csv(csv)["accuracy_test"].isna().all()
    assert all(row["accuracy_test"] is None for row in json.loads(listing.read_text()))


def test_latency_comes_from_the_search_or_from_exported_files(make_record: MakeRecord) -> None:
    record = make_record()
    rows = front_table(record)
    timed = Cost("latency", 0.002, 0.004, (0.0019, 0.0021), "a fan")
    first, *others = front_table(record, None, {rows[0].trial: timed})
    flat = first.flat("accuracy")
    assert (flat["latency"], flat["latency_ratio"], flat["latency_noisy"]) == (0.002, 0.5, True)
    assert flat["efficiency"] == pytest.approx(first.costs["macs"].ratio / 0.5)
    assert list(flat) == list(rows[0].flat("accuracy")), "the same columns, measured or not"
    for row in others:
        assert {row.flat("accuracy")[name] for name in ("latency", "latency_noisy", "efficiency")} == {None}
    own = replace(timed, value=0.003, noisy=None)
    trials = [
        replace(t, evaluation=replace(t.evaluation, costs={**t.evaluation.costs, "latency": own}))
        if t.evaluation
        else t
        for t in record.trials
    ]
    searched = front_table(replace(record, trials=tuple(trials)), None, {rows[0].trial: timed})
    assert searched[0].latency == own
    assert searched[0].flat("accuracy")["latency_noisy"] is False


def test_empty_front_keeps_the_header(make_record: MakeRecord, tmp_path: Path) -> None:
    full, _ = write_front(make_record(), tmp_path / "full")
    empty, listing = write_front(make_record(fail_all=True, finalists=0), tmp_path / "empty")
    assert empty.read_text().splitlines() == full.read_text().splitlines()[:1]
    assert json.loads(listing.read_text()) == []


def test_unknown_trials_are_errors(make_record: MakeRecord) -> None:
    record = make_record()
    with pytest.raises(StudyError, match="trial 17 is not a completed trial"):
        trial_row(record, 17)
    lost = replace(record, trials=record.trials[:3])
    with pytest.raises(StudyError, match="storage is damaged"):
        front_table(lost)
