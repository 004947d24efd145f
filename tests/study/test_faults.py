"""Real processes that are killed, and files that are torn: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from automl_prune.candidate import Candidate
from automl_prune.evaluation import Evaluation
from automl_prune.evaluation.evaluator import Climb
from automl_prune.study.baselines import Baseline
from automl_prune.study.runner import read_study, run_study
from automl_prune.study.storage import open_storage
from tests.study.processes import check_exact, kill, lines, wait_for_end, wait_until
from tests.study.processes import start_worker as start
from tests.study.synthetic import evaluate, outcome, propose, spec


def test_killed_worker_loses_nothing_and_resumes_alike(tmp_path: Path) -> None:
    whole = run_study(spec(12), open_storage(None, tmp_path / "whole"), propose, evaluate)
    directory = tmp_path / "killed"
    directory.mkdir()
    for started in (3, 9):  # in a baseline, and in a proposed trial
        process = start(directory, 12, seconds=0.5)
        wait_until(lambda count=started: len(lines(directory, "start")) >= count, process)  # type: ignore[misc]  # bound
        kill(process)
        assert len(lines(directory, "start")) > len(lines(directory, "end")), "killed between two trials"
    wait_for_end(start(directory, 12))
    assert len(lines(directory, "lost", "events")) == 2
    record = read_study(open_storage(None, directory))
    check_exact(record, directory, 12)
    assert sorted(trial.attempt for trial in record.trials)[-3:] == [1, 2, 2]
    for trial in record.trials:
        assert trial.worker is not None
        assert len(trial.lost) == trial.attempt - 1
        for lost in trial.lost:
            assert lost.worker not in (None, trial.worker)
            assert lost.started is not None
            assert lost.noticed is not None
            assert trial.started is not None
            assert lost.started < lost.noticed <= trial.started
    assert outcome(record) == outcome(whole)


def test_two_workers_reach_the_exact_total(tmp_path: Path) -> None:
    workers = [start(tmp_path, 16, seconds=0.1, worker=number) for number in range(2)]
    for worker in workers:
        wait_for_end(worker)
    record = read_study(open_storage(None, tmp_path))
    check_exact(record, tmp_path, 16)
    assert len({trial.evaluation.worker for trial in record.trials if trial.evaluation}) == 2


def test_survivor_takes_over_from_a_killed_worker(tmp_path: Path) -> None:
    victim = start(tmp_path, 10, seconds=600)
    wait_until(lambda: bool(lines(tmp_path, "start")), victim)
    survivor = start(tmp_path, 10, worker=1)
    wait_until(lambda: len(lines(tmp_path, "end")) >= 9, survivor)
    kill(victim)
    wait_for_end(survivor)
    record = read_study(open_storage(None, tmp_path))
    check_exact(record, tmp_path, 10)
    assert record.trials[0].attempt == 2


def test_interrupt_hands_the_running_trial_back(tmp_path: Path) -> None:
    process = start(tmp_path, 8, seconds=600)
    wait_until(lambda: bool(lines(tmp_path, "start")), process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    wait_for_end(process, exitcode=1)
    assert lines(tmp_path, "handed_back", "events") == ["handed_back 0"]
    record = read_study(open_storage(None, tmp_path))
    assert [trial.state for trial in record.trials] == ["waiting"] * 4  # the four baselines, one of them again
    wait_for_end(start(tmp_path, 8))
    assert not lines(tmp_path, "lost", "events")
    record = read_study(open_storage(None, tmp_path))
    check_exact(record, tmp_path, 8)
    assert {trial.attempt for trial in record.trials} == {1}


def test_worker_that_says_nothing_is_given_up_after_its_lease(tmp_path: Path) -> None:
    silent = start(tmp_path, 6, seconds=600, lease=1)
    wait_until(lambda: bool(lines(tmp_path, "start")), silent)
    assert silent.pid is not None
    os.kill(silent.pid, signal.SIGSTOP)  # alive, but its beat has stopped, like a machine that hangs
    wait_for_end(start(tmp_path, 6, lease=1, worker=1))
    kill(silent)
    record = read_study(open_storage(None, tmp_path))
    check_exact(record, tmp_path, 6)
    assert sorted(trial.attempt for trial in record.trials) == [1, 1, 1, 1, 1, 2]


@pytest.mark.parametrize("cut", [1, 40])
def test_torn_journal_is_repaired_and_the_study_goes_on(cut: int, tmp_path: Path) -> None:
    wait_for_end(start(tmp_path, 5))
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    journal.write_bytes(whole[:-cut])
    storage = open_storage(None, tmp_path)
    (notice,) = storage.notices
    (copy,) = tmp_path.glob("study.journal.torn-*")
    assert copy.name in notice
    assert copy.read_bytes() == last[:-cut]
    assert journal.read_bytes() == whole[: -len(last)]
    record = run_study(spec(7), storage, propose, evaluate)  # the last trial's end was lost, and with it the trial
    assert [(trial.state, trial.attempt) for trial in record.trials[3:6]] == [("complete", n) for n in (1, 2, 1)]
    assert len(record.trials) == 7


@pytest.mark.parametrize("attempts", [1, 3])
def test_trial_that_kills_its_workers_is_set_aside(attempts: int, tmp_path: Path) -> None:
    for _ in range(attempts):
        wait_for_end(start(tmp_path, 8, poison=2, attempts=attempts), -signal.SIGKILL)
    wait_for_end(start(tmp_path, 8, poison=2, attempts=attempts))
    record = read_study(open_storage(None, tmp_path))
    assert [trial.state for trial in record.trials] == ["complete"] * 2 + ["failed"] + ["complete"] * 5
    reason = record.trials[2].reason
    assert reason
    assert f"its worker died {attempts} times (process " in reason
    assert record.trials[2].attempt == attempts
    assert lines(tmp_path, "failed", "events") == ["failed 2"]

    def never(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        raise AssertionError("what killed its workers is not tried again under another number")

    same = Baseline("the same point again", record.trials[2].point)
    more = run_study(replace(spec(9), baselines=(same,)), open_storage(None, tmp_path), propose, never)
    assert more.trials[:8] == record.trials
    assert more.trials[8].state == "failed"
    assert "the model of trial 2, whose worker died every time" in str(more.trials[8].reason)
