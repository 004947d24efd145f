from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from automl_prune.report.scatter import finalists_figure, score_view, search_figure
from automl_prune.study.record import StudyRecord
from tests.report.conftest import data_of, rows_of

MakeRecord = Callable[..., StudyRecord]


def marks(figure: Any) -> Iterator[tuple[str, float, float]]:
    for trace in figure.data:
        if trace.mode == "markers" and trace.name != "selected":
            yield from ((trace.name, x, y) for x, y in zip(trace.x, trace.y, strict=True))


@pytest.mark.parametrize("regression", [False, True])
def test_search_figure_draws_every_completed_trial_once(make_record: MakeRecord, regression: bool) -> None:
    record = make_record(regression=regression)
    scale = 1 if regression else 100
    expected = sorted(
        (e.costs["macs"].value, scale * e.score.value) for trial in record.trials if (e := trial.evaluation)
    )
    drawn = sorted((x, y) for name, x, y in marks(search_figure(data_of(record), "macs")) if name != "dense model")
    assert drawn == expected


def test_baselines_infeasible_and_front_are_apart(make_record: MakeRecord) -> None:
    record = make_record()
    data = data_of(record)
    figure = search_figure(data, "macs")
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
    figure = finalists_figure(data, rows, "macs")
    drawn = {
        (x, y, bar)
        for trace in figure.data
        if trace.name.startswith(("search", "baseline"))
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
    figure = finalists_figure(data, rows_of(data.finalists), "macs")
    bars = [bar for trace in figure.data if trace.error_y.array is not None for bar in trace.error_y.array]
    assert bars
    assert set(bars) == {None}


def test_collapsed_trials_do_not_flatten_the_view(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    view = score_view(data)
    assert view is not None
    assert view[0] > 0.31, "trial 30 scores 31 %"
    assert all(view[0] < point.score < view[1] for point in data.search_front.points)
    steady = [t for t in make_record().trials if t.number != 30]
    assert score_view(data_of(replace(make_record(), trials=tuple(steady)))) is None


def test_another_cost_has_its_own_front_budget_and_title(make_record: MakeRecord) -> None:
    record = make_record(finalists=0)
    trials = list(record.trials)
    cheapest = min((e.costs["params"].value, t.number) for t in trials if t.feasible and (e := t.evaluation))
    data = data_of(record)
    figure = search_figure(data, "params")
    assert "Parameters" in figure.layout.xaxis.title.text
    assert not figure.layout.shapes, "parameters have no budget here"
    (line,) = (trace for trace in figure.data if trace.name == "front")
    assert line.x[0] == cheapest[0], "whatever is cheapest cannot be dominated"
    scores = [y for _, y in sorted(zip(line.x, line.y, strict=True))]
    assert scores == sorted(scores)
    drawn = {trial for trace in figure.data if trace.customdata is not None for trial in trace.customdata}
    assert drawn == {t.number for t in trials if t.evaluation}


def test_every_axis_has_a_title_and_the_score_its_unit(make_record: MakeRecord) -> None:
    data = data_of(make_record())
    for figure in (search_figure(data, "macs"), finalists_figure(data, rows_of(data.finalists), "macs")):
        assert "[MACs]" in figure.layout.xaxis.title.text
        assert "[%]" in figure.layout.yaxis.title.text
    other = search_figure(data_of(make_record(regression=True)), "macs")
    assert "lower is better" in other.layout.yaxis.title.text


def test_no_two_kinds_of_mark_share_a_symbol(make_record: MakeRecord) -> None:
    figure = search_figure(data_of(make_record()), "macs")
    symbols = [trace.marker.symbol for trace in figure.data if trace.mode == "markers" and trace.name != "selected"]
    assert len(symbols) == len(set(symbols)) >= 5
