from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from automl_prune.report.data import Missing, collect
from automl_prune.report.sections.workers import MOST_WORKERS, failures, render, spans, timeline_figure
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def test_spans_hold_every_attempt_with_its_worker_and_times(make_record: MakeRecord) -> None:
    record = make_record()
    found = spans(record)
    assert isinstance(found, tuple)
    kinds = [span.kind for span in found]
    assert (kinds.count("evaluated"), kinds.count("failed")) == (38, 2)
    (lost,) = (span for span in found if span.kind.startswith("lost"))
    (again,) = (span for span in found if span.attempt == 2)
    assert (lost.trial, lost.worker, lost.end - lost.start) == (9, "box:99", 29)
    assert (again.trial, again.worker, again.kind) == (9, "box:101", "evaluated")
    seven = next(span for span in found if span.trial == 7)
    assert (seven.start, seven.end) == (7 * 14, 7 * 14 + 12.5)


def test_the_timeline_has_a_line_per_worker_and_marks_what_went_wrong(make_record: MakeRecord) -> None:
    found = spans(make_record())
    assert isinstance(found, tuple)
    figure = timeline_figure(found)
    assert list(figure.layout.yaxis.categoryarray) == ["box:99", "box:101", "box:100"]
    assert "minutes" in figure.layout.xaxis.title.text
    by_name = {trace.name: trace for trace in figure.data}
    assert len(by_name["evaluated"].x) == 3 * 38
    assert list(by_name["tried again"].y) == ["box:101"]
    assert list(by_name["failed here"].x) == [(14 * n + 6) / 60 for n in (17, 23)]


def test_of_many_workers_the_busiest_are_drawn(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record(trials=100, finalists=0)
    trials = tuple(replace(t, worker=f"w{t.number}") for t in record.trials)
    html = render(collect(replace(record, trials=trials), tmp_path))
    assert f"Only the {MOST_WORKERS} workers" in html
    assert "101 workers" in html


def test_nobody_has_worked_yet(make_record: MakeRecord) -> None:
    assert isinstance(spans(make_record(trials=0, finalists=0)), Missing)


def test_failures_are_grouped_by_reason(make_record: MakeRecord) -> None:
    record = make_record()
    trials = [replace(t, reason=None) if t.number == 23 else t for t in record.trials]
    found = failures(replace(record, trials=tuple(trials)))
    assert {failure.trials for failure in found} == {(17,), (23,)}
    assert any("no reason recorded" in failure.reason for failure in found)
