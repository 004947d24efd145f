from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.report.data import ReportData, collect
from automl_prune.report.sections.finalists import finalists_figure
from automl_prune.report.sections.history import History, growth, history_figure
from automl_prune.report.sections.search import score_view, search_figure
from automl_prune.report.sections.widths import widths_figure
from automl_prune.report.table import FrontRow
from automl_prune.study.record import StudyRecord

MakeRecord = Callable[..., StudyRecord]


def data_of(record: StudyRecord) -> ReportData:
    return collect(record, Path("runs/x"))


def rows_of(part: object) -> tuple[FrontRow, ...]:
    assert isinstance(part, tuple)
    return part


def marks(figure: Any) -> Iterator[tuple[str, float, float]]:
    for trace in figure.data:
        if trace.mode == "markers":
            yield from ((trace.name, x, y) for x, y in zip(trace.x, trace.y, strict=True))


@pytest.mark.parametrize("regression", [False, True])
def test_search_figure_draws_every_completed_trial_once(make_record: MakeRecord, regression: bool) -> None:
    record = make_record(regression=regression)
    scale = 1 if regression else 100
    expected = sorted(
        (e.costs["macs"].value, scale * e.score.value) for trial in record.trials if (e := trial.evaluation)
    )
    drawn = sorted((x, y) for name, x, y in marks(search_figure(data_of(record))) if name != "dense model")
    assert drawn == expected


def test_baselines_infeasible_and_front_are_apart(make_record: MakeRecord) -> None:
    record = make_record()
    data = data_of(record)
    figure = search_figure(data)
    by_name = {trace.name: trace for trace in figure.data}
    assert list(by_name["over budget"].x) == [
        t.evaluation.costs["macs"].value for t in record.trials if t.evaluation and not t.feasible
    ]
    colours = {name: by_name[name].marker.color for name in ("search", "baseline", "over budget")}
    symbols = {name: by_name[name].marker.symbol for name in colours}
    assert len(set(colours.values())) == len(set(symbols.values())) == 3
    assert list(by_name["front"].x) == [point.cost for point in data.search_front.points]
    limit = record.context.limits["macs"]
    assert [shape.x0 for shape in figure.layout.shapes] == [limit]


def test_finalists_figure_equals_the_record(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    rows = rows_of(data.finalists)
    figure = finalists_figure(data, rows)
    drawn = {
        (x, y, bar)
        for trace in figure.data
        if trace.name.startswith("finalist")
        for x, y, bar in zip(trace.x, trace.y, trace.error_y.array, strict=True)
    }
    expected = {
        (r.costs["macs"].value, 100 * r.test.value, 100 * r.test.margin) for r in rows if r.test and r.test.margin
    }
    assert drawn == expected
    dense = next(trace for trace in figure.data if trace.name == "dense model")
    assert (dense.x[0], dense.y[0]) == (data.context.dense_costs["macs"], 100 * data.context.dense_test.value)


def test_unknown_intervals_have_no_bars(make_record: MakeRecord) -> None:
    data = data_of(make_record(seeds=1, standard_errors=False))
    figure = finalists_figure(data, rows_of(data.finalists))
    bars = [bar for trace in figure.data if trace.mode == "markers" for bar in trace.error_y.array]
    assert bars
    assert set(bars) == {None}


def test_heat_map_holds_kept_fractions_in_network_order(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    rows = rows_of(data.front)
    (heat,) = widths_figure(data, rows).data
    assert list(heat.x) == list(data.context.group_widths)
    for row, fractions, counts in zip(rows, heat.z, heat.text, strict=True):
        assert list(counts) == [row.candidate.widths[name] for name in data.context.group_widths]
        assert list(fractions) == pytest.approx(
            [100 * row.candidate.widths[name] / width for name, width in data.context.group_widths.items()]
        )


def test_groups_a_candidate_leaves_out_keep_everything(make_record: MakeRecord) -> None:
    data = data_of(make_record(finalists=0))
    row = replace(rows_of(data.front)[0], candidate=Candidate({"conv1": GroupChoice(3, "l1")}))
    (heat,) = widths_figure(data, [row]).data
    assert list(heat.text[0]) == [3, *list(data.context.group_widths.values())[1:]]


def test_history_figure_equals_the_history(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    history = growth(data.record, data.search_front)
    assert isinstance(history, History)
    line, _, level = history_figure(history).data
    assert list(line.y) == [100 * value for value in history.values]
    assert list(line.x) == list(history.trials)
    assert history.baselines is not None
    assert set(level.y) == {100 * history.baselines}


def test_every_axis_has_a_title_and_the_score_its_unit(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    history = growth(data.record, data.search_front)
    assert isinstance(history, History)
    search = search_figure(data)
    for figure in (search, finalists_figure(data, rows_of(data.finalists))):
        assert "[MACs]" in figure.layout.xaxis.title.text
        assert "[%]" in figure.layout.yaxis.title.text
    grown = history_figure(history)
    assert grown.layout.xaxis.title.text
    assert grown.layout.yaxis.title.text
    assert "lower is better" in search_figure(data_of(make_record(regression=True))).layout.yaxis.title.text


def test_collapsed_trials_do_not_flatten_the_view(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    view = score_view(data)
    assert view is not None
    assert view[0] > 0.31, "trial 30 scores 31 %"
    assert all(view[0] < point.score < view[1] for point in data.search_front.points)
    steady = [t for t in make_record().trials if t.number != 30]
    assert score_view(data_of(replace(make_record(), trials=tuple(steady)))) is None


def test_hover_names_everything(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    texts = [t for trace in search_figure(data).data if trace.text for t in trace.text]
    (seven,) = (text for text in texts if "trial 7<" in text)
    for word in ("accuracy", "MACs", "parameters", "criterion", "widths"):
        assert word in seven
    assert len([text for text in texts if "trial" in text]) == 38


def test_hostile_names_are_no_markup(make_record: MakeRecord) -> None:
    record = make_record()
    trials = tuple(replace(trial, origin="<a href='javascript:1'>x</a>") for trial in record.trials)
    text = search_figure(data_of(replace(record, trials=trials))).to_json()
    assert "<a" not in text.replace("\\u003c", "<")
