"""A search stops when its front has stopped growing: everyone at the same point, and never silently."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.candidate import Candidate
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.front import FrontPoint, hypervolume_history, reference_point
from automl_prune.report import front_table
from automl_prune.study.chains import chains_of
from automl_prune.study.codec import RESULT, template
from automl_prune.study.record import Finalist, FinalistRun, Stop
from automl_prune.study.runner import read_study, run_study, write_finalist
from automl_prune.study.stopping import LEAST_GROWTH, Stagnation
from automl_prune.study.storage import open_storage
from automl_prune.tasks import Score
from tests.study import synthetic
from tests.study.synthetic import evaluate, outcome, propose, rescored, spec

CONTEXT = synthetic.context()
LIMIT = CONTEXT.limits["macs"]


def flat(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
    """Nothing beats the baselines, whose widths are all the same."""
    return rescored(evaluate(candidate, seed), 0.6 if len(set(candidate.widths.values())) == 1 else 0.5)


def test_the_search_stops_and_every_resume_stops_there(tmp_path: Path) -> None:
    request = replace(spec(40), patience=8)
    whole = run_study(request, open_storage(None, tmp_path / "whole"), propose, flat)
    assert [trial.origin == "search" for trial in whole.trials] == [False] * 6 + [True] * 8
    assert whole.stop is not None
    assert (whole.stop.trials, whole.stop.patience) == (14, 8)
    assert whole.stop.growth < LEAST_GROWTH
    assert whole.finished
    for stop in (3, 9, 14):
        calls = 0

        def interrupting(candidate: Candidate, seed: int, climb: Climb, stop: int = stop) -> Evaluation:
            nonlocal calls
            calls += 1
            if calls == stop:
                raise KeyboardInterrupt
            return flat(candidate, seed, climb)

        storage = open_storage(None, tmp_path / str(stop))
        with pytest.raises(KeyboardInterrupt):
            run_study(request, storage, propose, interrupting)
        assert not read_study(storage).finished
        assert outcome(run_study(request, storage, propose, flat)) == outcome(whole)


def test_more_trials_do_not_wake_it_but_more_patience_does(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    first = run_study(replace(spec(40), patience=8), storage, propose, flat)
    more = run_study(replace(spec(60), patience=8), storage, propose, flat)
    assert more.trials == first.trials
    assert more.stop == first.stop
    assert more.stop is not None
    sentence = more.stop.sentence(more.requested)
    assert "after 14 of 60 trials" in sentence
    assert "search.patience=null" in sentence
    patient = run_study(replace(spec(60), patience=None), storage, propose, flat)
    assert (len(patient.trials), patient.stop) == (60, None)
    assert patient.trials[:14] == first.trials


def test_a_front_that_grows_does_not_stop(tmp_path: Path) -> None:
    level = iter(range(1, 100))

    def rising(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        return rescored(evaluate(candidate, seed), 0.5 + 0.004 * next(level))

    record = run_study(replace(spec(30), patience=4), open_storage(None, tmp_path), propose, rising)
    assert (len(record.trials), record.stop) == (30, None)


def trial(number: int, state: OptunaState, score: float, cost: float, **attributes: Any) -> FrozenTrial:
    complete = state == OptunaState.COMPLETE
    result = {RESULT: {"violations": {"macs": cost / LIMIT - 1}}} if complete else {}
    made = template(state, {}, {**attributes, **result}, values=(score, cost) if complete else None)
    made.number = number
    return made


COMPLETE, RUNNING, FAIL = OptunaState.COMPLETE, OptunaState.RUNNING, OptunaState.FAIL


def test_what_runs_before_it_is_waited_for() -> None:
    flat_trials = [trial(number, COMPLETE, 0.6, 1000.0) for number in range(8)]
    waiting = [*flat_trials[:2], trial(2, RUNNING, 0, 0), *flat_trials[3:]]
    stagnation = Stagnation(3, CONTEXT)
    stagnation.look(chains_of(waiting))
    assert stagnation.stop is None
    stagnation.look(chains_of(flat_trials))
    assert stagnation.stop == Stop(4, 3, 0.0)


def test_an_empty_area_never_stops_and_failures_count_as_trials() -> None:
    hopeless = [trial(number, COMPLETE, 0.1, 1000.0) for number in range(9)]
    stagnation = Stagnation(3, CONTEXT)
    stagnation.look(chains_of(hopeless))
    assert stagnation.stop is None, "below half the dense score nothing is learnt about growth"
    failing = [trial(0, COMPLETE, 0.6, 1000.0), *(trial(n, FAIL, 0, 0, reason="nan") for n in range(1, 5))]
    stagnation.look(chains_of(failing))
    assert Stagnation(3, CONTEXT).stop is None
    fresh = Stagnation(3, CONTEXT)
    fresh.look(chains_of(failing))
    assert fresh.stop == Stop(4, 3, 0.0)


Points = st.lists(
    st.tuples(st.floats(0, 1), st.floats(1, 3000), st.sampled_from(["search", "uniform"])), min_size=1, max_size=40
)


@given(Points, st.integers(1, 6), st.data())
def test_it_is_where_the_history_says_however_it_is_looked_at(
    points: list[tuple[float, float, str]], patience: int, data: st.DataObject
) -> None:
    trials = [
        trial(n, COMPLETE, score, cost, origin=origin if origin == "search" else f"{origin} {n}")
        for n, (score, cost, origin) in enumerate(points)
    ]
    chains = chains_of(trials)
    at_once, bit_by_bit = Stagnation(patience, CONTEXT), Stagnation(patience, CONTEXT)
    at_once.look(chains)
    for cut in sorted(data.draw(st.lists(st.integers(0, len(chains)), max_size=5))):
        bit_by_bit.look(chains[:cut])
    bit_by_bit.look(chains)
    assert at_once.stop == bit_by_bit.stop
    reference = reference_point(CONTEXT.dense_val.value, CONTEXT.dense_costs["macs"], higher_is_better=True)
    front = [FrontPoint(n, score, cost, cost <= LIMIT, 0) for n, (score, cost, _) in enumerate(points)]
    areas = [0.0, *hypervolume_history(front, reference, higher_is_better=True)]
    searched = [n for n, (_, _, origin) in enumerate(points) if origin == "search"]
    stops = [
        last + 1
        for first, last in zip(searched, searched[patience - 1 :], strict=False)
        if areas[last + 1] - areas[first] < LEAST_GROWTH * areas[first]
    ]
    assert (at_once.stop.trials if at_once.stop else None) == (stops[0] if stops else None)


def test_models_that_are_given_are_not_proposals() -> None:
    given_ = [trial(number, COMPLETE, 0.6, 1000.0, origin="search", source=f"trial {number}") for number in range(8)]
    proposed = [trial(number, COMPLETE, 0.6, 1000.0, origin="search") for number in range(8, 11)]
    stagnation = Stagnation(3, CONTEXT)
    stagnation.look(chains_of(given_))
    assert stagnation.stop is None
    stagnation.look(chains_of([*given_, *proposed]))
    assert stagnation.stop == Stop(11, 3, 0.0)


def test_a_finalist_beyond_the_stop_is_set_aside_with_its_trial(tmp_path: Path) -> None:
    storage, request = open_storage(None, tmp_path), replace(spec(40), patience=8)
    run_study(request, storage, propose, flat)
    run_study(replace(request, patience=None), storage, propose, flat)
    scored = FinalistRun(0, Score(0.6, 100), Score(0.6, 100), 1, 1.0)
    for number in (3, 30):
        write_finalist(storage, Finalist(number, (scored,)))
    assert [finalist.trial for finalist in read_study(storage).finalists] == [3, 30]
    again = run_study(request, storage, propose, flat)
    assert len(again.trials) == 14
    assert [row.trial for row in front_table(again)] == [3]
