"""A made-up search played to a view, and the numbers a logger must then hold."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.api.reading import verdict, write_results
from automl_prune.api.watching import Watcher, finalist_trained
from automl_prune.report import front_table
from automl_prune.report.sections.history import History, growth
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyRecord
from automl_prune.view import SearchEnded, View
from tests.report.conftest import Recipe, make
from tests.study.synthetic import spec

RECORD = make(Recipe(trials=30, finalists=3))
SPEC = replace(spec(30), context=RECORD.context)
NUMBERS = tuple(range(30))
SHUFFLED = tuple(random.Random(0).sample(NUMBERS, 30))


def with_trials(ended: Sequence[int]) -> StudyRecord:
    """The search when these trials have ended and the others wait."""
    trials = (
        trial
        if trial.number in ended
        else replace(trial, state="waiting", evaluation=None, feasible=None, finished=None, reason=None)
        for trial in RECORD.trials
    )
    return replace(RECORD, trials=tuple(trials), finalists=())


def play(view: View, order: Sequence[int], *, earlier: Sequence[int] = ()) -> None:
    """Tell of a session in which trials end in this order, after a session that had ended others."""
    watcher = Watcher(view, lambda done, total, note="": None, SPEC, with_trials(earlier) if earlier else None)
    for count in range(len(order)):
        watcher.look(with_trials([*earlier, *order[: count + 1]]))


def play_end(view: View, run_dir: Path) -> None:
    """Tell of finalists and the end, with all files in the run directory."""
    directory = RunDirectory(run_dir)
    write_results(RECORD, directory)
    for finalist in reversed(RECORD.finalists):
        view.tell(finalist_trained(RECORD, finalist.trial))
    rows = tuple(row.flat("accuracy") for row in front_table(RECORD))
    view.tell(SearchEnded(str(run_dir), str(directory.report), verdict(RECORD), rows))


def check(series: dict[str, list[tuple[int, float]]]) -> None:
    """The whole search is there: ``series`` holds (step, value) by name, in the order they were logged."""
    past = growth(RECORD)
    assert isinstance(past, History)
    done = {trial.number: trial.evaluation for trial in RECORD.trials if trial.evaluation}
    limit = RECORD.context.limits["macs"]
    wanted = {
        "trial/complete": [(n, float(n in done)) for n in NUMBERS],
        "trial/accuracy": [(n, e.score.value) for n, e in done.items()],
        "trial/accuracy_rung0": [(n, e.rungs[0].score.value) for n, e in done.items()],
        "trial/macs": [(n, e.costs["macs"].value) for n, e in done.items()],
        "trial/violation": [(n, max(0.0, e.costs["macs"].value / limit - 1)) for n, e in done.items()],
        "trial/baseline": [(t.number, float(t.origin != "search")) for t in RECORD.trials],
        "front/hypervolume": list(zip(past.trials, past.values, strict=True)),
        "finalist/accuracy_test": [
            (f.trial, sum(run.test.value for run in f.runs) / len(f.runs)) for f in RECORD.finalists
        ],
        "dense/accuracy_test": [(0, RECORD.context.dense_test.value)],
        "best/trial": [(30, float(front_table(RECORD)[-1].trial))],
    }
    for name, points in wanted.items():
        assert [step for step, _ in series[name]] == [step for step, _ in points], name
        assert [value for _, value in series[name]] == pytest.approx([v for _, v in points], rel=1e-6), name
    for (_, low), (_, mean), (_, high) in zip(
        series["finalist/accuracy_test_low"], series["finalist/accuracy_test"], series["finalist/accuracy_test_high"],
        strict=True,
    ):  # fmt: skip
        assert low < mean < high
