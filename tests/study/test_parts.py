"""The small parts: chains of attempts, leases, baselines, differences, the run directory."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.errors import StudyError
from automl_prune.study.baselines import Baseline, Propose, affordable, at_several_costs
from automl_prune.study.chains import chains_of
from automl_prune.study.codec import differences, template
from automl_prune.study.directory import RunDirectory
from automl_prune.study.leases import Beat, Owner, Watch
from automl_prune.study.record import Point


def trial(number: int, state: OptunaState, **attributes: Any) -> FrozenTrial:
    values = (1.0, 2.0) if state == OptunaState.COMPLETE else None
    made = template(state, {"target_cost": 0.5}, attributes, values=values)
    made.number = number
    return made


WAITING, RUNNING, COMPLETE, FAIL = OptunaState.WAITING, OptunaState.RUNNING, OptunaState.COMPLETE, OptunaState.FAIL


def test_chains_join_attempts_and_leave_out_what_was_dropped() -> None:
    chains = chains_of(
        [
            trial(0, FAIL),  # lost, tried again as 4
            trial(1, FAIL, reason="nan"),
            trial(2, FAIL, dropped="enough"),
            trial(3, COMPLETE),
            trial(4, RUNNING, root=0),
            trial(5, WAITING, root=0),  # two workers saw that 0 was lost
            trial(6, FAIL),
        ]
    )
    assert [(c.index, c.state, c.current.number, c.attempt) for c in chains] == [
        (0, "running", 4, 2),
        (1, "failed", 1, 1),
        (2, "complete", 3, 1),
        (3, "lost", 6, 1),
    ]
    first = chains[0]
    assert first.accepts(first.attempts[1])
    assert not first.accepts(first.attempts[2])
    assert not chains[2].accepts(chains[2].attempts[0])


def test_baseline_that_two_processes_enqueued_is_one_point() -> None:
    (chain,) = chains_of([trial(0, RUNNING, origin="uniform l1"), trial(1, WAITING, origin="uniform l1")])
    assert [attempt.number for attempt in chain.attempts] == [0, 1]


def test_successor_is_another_attempt_at_the_same_point() -> None:
    (chain,) = chains_of([trial(3, FAIL, origin="search", owner={}, beat=5)])
    successor = chain.successor()
    assert successor.state == WAITING
    assert successor.user_attrs == {"point": {"target_cost": 0.5}, "origin": "search", "root": 3, "retry_of": 3}


@pytest.mark.parametrize(
    ("ends", "attempt"), [(["lost"], 2), (["lost", "lost"], 3), (["handed_back"], 1), (["handed_back", "lost"], 2)]
)
def test_attempts_count_the_workers_that_died(ends: list[str], attempt: int) -> None:
    # Two successors of the same number of attempts happen: two workers saw the loss at once, and both were tried.
    lost = [trial(n, FAIL, root=0, **({"handed_back": True} if end != "lost" else {})) for n, end in enumerate(ends)]
    (chain,) = chains_of([*lost, trial(len(ends), COMPLETE, root=0), trial(9, FAIL, root=0, dropped="late")])
    assert chain.attempt == attempt
    assert len(chain.deaths) == attempt - 1


def test_owner_knows_whether_its_process_lives() -> None:
    mine = Owner.mine()
    assert Owner.from_json(mine.to_json()) == mine
    assert not mine.is_gone()
    assert replace(mine, started=mine.started + "0").is_gone(), "the process id has been given to another process"
    twin = replace(mine, boot="other/" + mine.boot.split("/")[1], pid=0)
    assert not twin.is_gone(), "restarted, or another machine of that name: its lease decides"
    assert not replace(mine, host=socket.gethostname() + "-other", pid=0).is_gone(), "nothing is known of it here"
    assert not replace(mine, boot=mine.boot + "x", pid=0).is_gone(), "another container's process ids mean nothing"
    assert Owner.from_json({"unknown": 1}) is None


def test_owner_is_gone_when_its_process_is_killed_even_as_a_zombie() -> None:
    with subprocess.Popen(["sleep", "600"]) as child:
        started = Path(f"/proc/{child.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[19]
        owner = replace(Owner.mine(), pid=child.pid, started=started)
        assert not owner.is_gone()
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
        assert owner.is_gone()
    assert owner.is_gone()


def test_watch_waits_a_lease_for_the_next_beat() -> None:
    now = [100.0]
    watch = Watch(10, clock=lambda: now[0])
    elsewhere = {"owner": {"host": "elsewhere", "boot": "b", "pid": 1, "started": "1"}}

    def stale(beat: int) -> bool:
        return watch.is_stale(trial(0, RUNNING, beat=beat, **elsewhere))

    def after(seconds: int, beat: int) -> bool:
        found = False
        for _ in range(seconds):
            now[0] += 1
            found = stale(beat)
        return found

    assert not stale(1)
    assert not after(9, beat=1)
    assert not stale(2)
    assert not after(9, beat=2)
    assert after(1, beat=2)


def test_watch_gives_a_trial_without_an_owner_its_lease() -> None:
    now = [0.0]
    watch = Watch(10, clock=lambda: now[0])
    looks = []
    for now[0] in (0, 3, 6, 9, 10):
        looks.append(watch.is_stale(trial(0, RUNNING)))
    assert looks == [False, False, False, False, True]


def test_watch_does_not_count_what_it_did_not_see() -> None:
    now = [0.0]
    watch = Watch(9, clock=lambda: now[0])
    looks = []
    for now[0] in (0, 1000, 2000, 3000):  # a worker that looks between its own long evaluations
        looks.append(watch.is_stale(trial(0, RUNNING)))
    assert looks == [False, False, False, True]


def test_beat_survives_failures_and_ends_with_its_trial() -> None:
    counts: list[int] = []
    enough = threading.Event()

    def write(count: int) -> None:
        counts.append(count)
        if count == 2:
            raise StudyError("the storage is away")
        if count == 4:
            enough.set()
            raise UpdateFinishedTrialError

    with Beat(write, 0.01):
        assert enough.wait(30)
    assert counts == [1, 2, 3, 4]


def test_baselines_start_at_the_budget_and_leave_out_models_they_have() -> None:
    def kind(criterion: str) -> Propose:
        return lambda share: Candidate({"a": GroupChoice(round(5 * max(share, 0.8)), criterion)})

    def near(candidate: Candidate, share: float) -> Point:
        return {"criterion": candidate.choices["a"].criterion, "target_cost": share}

    def candidate_of(point: Point) -> Candidate:
        return kind(str(point["criterion"]))(1.0)

    found = at_several_costs({f"uniform {name}": kind(name) for name in ("l1", "l2")}, near, candidate_of, lowest=0.6)
    assert [(b.origin, b.point["target_cost"], b.candidate and b.candidate.widths) for b in found] == [
        ("uniform l1", 1.0, None),
        ("uniform l2", 1.0, None),
        ("uniform l1 at 80% of the budget", 0.8, {"a": 4}),
        ("uniform l2 at 80% of the budget", 0.8, {"a": 4}),
    ]
    near_all = at_several_costs(
        {"uniform l1": lambda share: Candidate({"a": GroupChoice(round(1000 * share), "l1")})},
        near,
        candidate_of,
        lowest=0.998,
    )
    assert [b.origin for b in near_all] == [
        "uniform l1", "uniform l1 at 99.9% of the budget", "uniform l1 at 99.8% of the budget",
    ]  # fmt: skip
    assert affordable(found, 5) == found[:2]
    assert affordable(found, 1) == ()


def test_baseline_cannot_pose_as_the_search() -> None:
    with pytest.raises(StudyError, match="cannot be called 'search'"):
        Baseline("search", {})


def test_differences_name_nested_keys() -> None:
    assert differences({"a": {"b": 1, "c": [1]}, "d": {}}, {"a": {"b": 2, "c": [1]}, "d": {"e": None}}) == [
        "a.b: stored 1, now 2",
        "d: stored {}, now absent",
        "d.e: stored absent, now None",
    ]
    assert differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []


def test_run_directory_passes_over_unfinished_models(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    assert list(run.exported()) == []
    for name, finished in (("10", True), ("9", True), ("8", False), (".7.tmp", True), ("x", True)):
        directory = run.models / name
        directory.mkdir(parents=True)
        (directory / ("manifest.json" if finished else ".manifest.json.abc.tmp")).touch()
    assert list(run.exported()) == [(9, run.model(9)), (10, run.model(10))]
    assert run.journal == tmp_path / "study.journal"
