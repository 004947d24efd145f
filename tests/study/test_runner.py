"""A study in one process: what it records, how it resumes, what it refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.candidate import Candidate
from automl_prune.errors import DataError, EvaluationError, Interrupted, StudyError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.study.baselines import Baseline
from automl_prune.study.ledger import Ledger
from automl_prune.study.promotion import Promotion
from automl_prune.study.record import Finalist, FinalistRun, StudyRecord
from automl_prune.study.runner import StudyReader, read_study, run_study, write_finalist
from automl_prune.study.spec import Event
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.study.strategies import strategies
from automl_prune.tasks.base import Score
from tests.study import synthetic
from tests.study.synthetic import Evaluator, evaluate, outcome, propose, rescored, spec


@pytest.fixture
def storage(tmp_path: Path) -> StudyStorage:
    return open_storage(None, tmp_path)


@pytest.mark.parametrize("strategy", list(strategies))
def test_records_everything(strategy: str, storage: StudyStorage) -> None:
    events: list[Event] = []
    record = run_study(spec(14, strategy=strategy), storage, propose, evaluate, events.append)
    assert record.context == synthetic.context()
    assert record.requested == 14
    assert [trial.number for trial in record.trials] == list(range(14))
    assert [trial.origin for trial in record.trials][:7] == [
        "uniform l1",
        "uniform l2",
        "uniform l1 at 75% of the budget",
        "uniform l2 at 75% of the budget",
        "uniform l1 at 50% of the budget",
        "uniform l2 at 50% of the budget",
        "search",
    ]
    for trial in record.trials:
        assert trial.state == "complete"
        assert trial.evaluation is not None
        assert trial.evaluation == evaluate(propose(trial.point), trial.evaluation.seed)
        assert trial.feasible is (trial.evaluation.costs["macs"].value <= record.context.limits["macs"])
        assert trial.started is not None
        assert trial.finished is not None
        assert trial.finished >= trial.started
        assert trial.started.tzinfo is not None
    assert Counter(event.kind for event in events) == {"started": 14, "complete": 14}
    assert [event.finished for event in events if event.kind == "complete"] == list(range(1, 15))
    assert read_study(storage) == record


def test_strategies_propose_within_bounds_and_differ_by_seed(tmp_path: Path) -> None:
    points = []
    for seed in (1, 2):
        record = run_study(
            replace(spec(12, strategy="random"), seed=seed),
            open_storage(None, tmp_path / str(seed)),
            propose,
            evaluate,
        )
        points.append([trial.point for trial in record.trials if trial.origin == "search"])
    assert points[0] != points[1]
    for point in (*points[0], *points[1]):
        assert 0.5 <= float(point["target_cost"]) <= 1
        assert point["criterion"] in ("l1", "l2")


def test_runs_on_in_the_same_way_after_every_stop(tmp_path: Path) -> None:
    whole = run_study(spec(16), open_storage(None, tmp_path / "whole"), propose, evaluate)
    for stop in (2, 7, 12):  # while baselines wait, at the first proposal, in the middle of the search
        directory = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            run_study(spec(16), open_storage(None, directory), propose, Evaluator({stop: KeyboardInterrupt()}))
        record = run_study(spec(16), open_storage(None, directory), propose, evaluate)
        assert outcome(record) == outcome(whole)
        assert {trial.attempt for trial in record.trials} == {1}, "a trial handed back has not been tried"


def test_larger_request_goes_on_and_smaller_does_nothing(storage: StudyStorage) -> None:
    baselines = spec(1).baselines[:3]
    run_study(replace(spec(8), baselines=baselines), storage, propose, evaluate)
    evaluator = Evaluator()
    record = run_study(replace(spec(11), baselines=baselines), storage, propose, evaluator)
    assert len(evaluator.calls) == 3
    assert [trial.state for trial in record.trials] == ["complete"] * 11
    again = Evaluator()
    assert run_study(replace(spec(5), baselines=baselines), storage, propose, again) == record
    assert again.calls == []


def test_one_that_looks_again_and_again_sees_what_a_newcomer_does(storage: StudyStorage) -> None:
    run_study(spec(2), storage, propose, evaluate)
    watcher, looks = StudyReader(storage), 0

    def look(event: Event) -> None:
        nonlocal looks
        assert watcher.read() == read_study(storage)
        looks += 1

    with pytest.raises(Interrupted):
        run_study(spec(8), storage, propose, Evaluator({2: EvaluationError("bad"), 4: Interrupted("stop")}), look)
    run_study(spec(8), storage, propose, evaluate, look)
    write_finalist(storage, Finalist(3, (FinalistRun(0, Score(0.9, 10), Score(0.9, 10), 1, 1.0),)))
    assert watcher.read() == read_study(storage)
    assert looks > 12


def test_baselines_leave_half_of_the_trials(storage: StudyStorage) -> None:
    record = run_study(spec(6), storage, propose, evaluate)
    assert [trial.origin == "search" for trial in record.trials] == [False] * 3 + [True] * 3
    record = run_study(spec(12), storage, propose, evaluate)
    assert Counter(trial.origin for trial in record.trials)["search"] == 6
    assert max(Counter(t.origin for t in record.trials if t.origin != "search").values()) == 1


def test_refuses_another_study_and_lists_what_differs(storage: StudyStorage) -> None:
    run_study(spec(2), storage, propose, evaluate)
    other = replace(
        spec(2),
        identity={"model": "another model", "data": {"train": "train digest", "val": "new"}, "more": 1},
        seed=8,
        context=replace(synthetic.context(), limits={"macs": 1500.0}),
    )
    with pytest.raises(StudyError) as caught:
        run_study(other, storage, propose, evaluate)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[1:-1] == [
        "data.val: stored 'val digest', now 'new'",
        "limits.macs: stored 2000.0, now 1500.0",
        "model: stored 'model digest', now 'another model'",
        "more: stored absent, now 1",
        "seed: stored 7, now 8",
    ]
    assert "--run-dir" in lines[-1]


def test_failed_trials_keep_their_reason_and_count(storage: StudyStorage) -> None:
    evaluator = Evaluator({2: EvaluationError("the loss became nan at step 3"), 4: RuntimeError("out of memory")})
    record = run_study(spec(8), storage, propose, evaluator)
    assert len(record.trials) == 8
    assert {trial.number: trial.reason for trial in record.trials if trial.state == "failed"} == {
        1: "the loss became nan at step 3",
        3: "RuntimeError: out of memory",
    }
    assert record.trials[1].evaluation is None
    assert record.trials[1].feasible is None


def test_score_that_is_no_number_fails_the_trial(storage: StudyStorage) -> None:
    def diverge(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        evaluation = evaluate(candidate, seed)
        broken = next(iter(candidate.choices.values())).criterion == "l2"
        return rescored(evaluation, float("nan")) if broken else evaluation

    record = run_study(spec(2), storage, propose, diverge)
    assert record.trials[0].state == "complete"
    run_study(spec(4), storage, propose, diverge)
    trial = next(t for t in read_study(storage).trials if t.origin == "uniform l2")
    assert trial.state == "failed"
    assert trial.reason is not None
    assert "nan" in trial.reason


def test_broken_set_up_stops_early(storage: StudyStorage) -> None:
    evaluator = Evaluator({call: EvaluationError(f"no GPU ({call})") for call in range(1, 30)})
    with pytest.raises(StudyError, match=r"all 5 trials failed.*no GPU \(5\)"):
        run_study(spec(20), storage, propose, evaluator)
    assert len(evaluator.calls) == 5


@pytest.mark.parametrize("error", [DataError("the disk is gone"), OSError(28, "No space left"), Interrupted("stop")])
def test_what_concerns_all_candidates_hands_the_trial_back(error: Exception, storage: StudyStorage) -> None:
    with pytest.raises(type(error)):
        run_study(spec(6), storage, propose, Evaluator({3: error}))
    assert [trial.state for trial in read_study(storage).trials] == ["complete", "complete", "waiting"]


def test_same_candidate_is_evaluated_once(storage: StudyStorage) -> None:
    def coarse(point: object) -> Candidate:
        return propose(synthetic.uniform_point("l1", 1.0))

    evaluator = Evaluator()
    events: list[Event] = []
    record = run_study(spec(5), storage, coarse, evaluator, events.append)
    assert len(evaluator.calls) == 1
    assert [trial.reused_from for trial in record.trials] == [None, 0, 0, 0, 0]
    assert all(trial.evaluation == record.trials[0].evaluation for trial in record.trials)
    assert Counter(event.kind for event in events)["reused"] == 4


def test_candidates_of_one_plan_are_evaluated_once(storage: StudyStorage) -> None:
    evaluator = Evaluator()

    def by_widths(candidate: Candidate) -> str:
        return str(candidate.widths)

    def keep_widths(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        return replace(evaluator(candidate, seed, climb), plan_digest=by_widths(candidate))

    record = run_study(spec(4), storage, propose, keep_widths, identify=by_widths)
    assert [(trial.origin, trial.reused_from) for trial in record.trials[:2]] == [
        ("uniform l1", None),
        ("uniform l2", 0),
    ]
    first, second = (trial.evaluation for trial in record.trials[:2])
    assert first is not None
    assert second == replace(first, candidate=propose(record.trials[1].point)), "its own criteria, the other's score"
    assert len(evaluator.calls) == sum(trial.reused_from is None for trial in record.trials)


def test_candidates_climb_and_what_strategies_see_is_rung_zero(tmp_path: Path) -> None:
    ladder = replace(spec(16), promotion=Promotion(10, 0.25))
    storage = open_storage(None, tmp_path / "whole")
    whole = run_study(ladder, storage, propose, evaluate)
    done = [trial.evaluation for trial in whole.trials if trial.evaluation]
    assert {evaluation.rung for evaluation in done} == {0, 1}
    for index, evaluation in enumerate(done):
        score = evaluation.rungs[0].score
        wanted = Promotion(10, 0.25).climbs(score, evaluation.costs, done[:index], whole.context)
        assert evaluation.rung == int(wanted)
    told = [chain.current.values[0] for chain in Ledger(storage, None).chains()]
    assert told == [evaluation.rungs[0].score.value for evaluation in done]
    for stop in (2, 3, 9):
        again = open_storage(None, tmp_path / str(stop))
        with pytest.raises(KeyboardInterrupt):
            run_study(ladder, again, propose, Evaluator({stop: KeyboardInterrupt()}))
        assert outcome(run_study(ladder, again, propose, evaluate)) == outcome(whole)


def test_evaluation_seed_depends_on_the_place_only(tmp_path: Path) -> None:
    first, second = Evaluator(), Evaluator()
    for directory, evaluator in (("a", first), ("b", second)):
        run_study(spec(8), open_storage(None, tmp_path / directory), propose, evaluator)
    assert first.calls == second.calls
    assert len({seed for _, seed in first.calls}) == 8


def test_bad_baseline_is_refused(storage: StudyStorage) -> None:
    outside = {**synthetic.uniform_point("l1", 1.0), "target_cost": 3.0}
    with pytest.raises(StudyError, match=r"'too dear' is no point of the space.*target_cost"):
        run_study(replace(spec(4), baselines=(Baseline("too dear", outside),)), storage, propose, evaluate)


def test_cost_that_was_not_evaluated_is_named(storage: StudyStorage) -> None:
    def forgetful(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        return replace(evaluate(candidate, seed), costs={})

    with pytest.raises(StudyError, match="'macs' was not evaluated"):
        run_study(spec(4), storage, propose, forgetful)


def test_lower_is_better_is_minimised(tmp_path: Path) -> None:
    base = replace(spec(40), context=synthetic.context(higher_is_better=False))

    def loss(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        evaluation = evaluate(candidate, 0)
        return rescored(evaluation, 1 - evaluation.score.value)

    record = run_study(base, open_storage(None, tmp_path), propose, loss)
    assert min(_scores(record, "search")) < min(_scores(record, "uniform"))


def test_tpe_beats_the_baselines(storage: StudyStorage) -> None:
    record = run_study(spec(60), storage, propose, lambda candidate, seed, climb: evaluate(candidate, 0))
    assert max(_scores(record, "search")) > max(_scores(record, "uniform"))


def _scores(record: StudyRecord, origin: str) -> list[float]:
    return [t.evaluation.score.value for t in record.trials if t.evaluation and t.origin.startswith(origin)]


def test_finalists_are_stored_with_the_study(storage: StudyStorage) -> None:
    run_study(spec(2), storage, propose, evaluate)
    run = FinalistRun(seed=3, val=Score(0.9, 100), test=Score(0.8, 100), steps=7, seconds=1.5)
    write_finalist(storage, Finalist(1, (run,)))
    write_finalist(storage, Finalist(0, (run,)))
    write_finalist(storage, Finalist(1, (run, replace(run, seed=4))))
    assert read_study(storage).finalists == (Finalist(0, (run,)), Finalist(1, (run, replace(run, seed=4))))


def test_missing_study_names_those_there_are(storage: StudyStorage) -> None:
    with pytest.raises(StudyError, match=r"holds 0 studies.*automl-prune search"):
        read_study(storage)
    run_study(spec(1), storage, propose, evaluate)
    with pytest.raises(StudyError, match=r"no study 'digits'.*\['synthetic'\]"):
        read_study(storage, "digits")


def test_no_trials_are_refused(storage: StudyStorage) -> None:
    with pytest.raises(StudyError, match="at least 1 trial, got 0"):
        run_study(spec(0), storage, propose, evaluate)


def test_exception_in_the_display_loses_no_trial(storage: StudyStorage) -> None:
    def display(event: Event) -> None:
        if event.kind == "started" and event.trial == 2:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        run_study(spec(4), storage, propose, evaluate, display)
    record = run_study(spec(4), storage, propose, evaluate)
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    assert {trial.attempt for trial in record.trials} == {1}
