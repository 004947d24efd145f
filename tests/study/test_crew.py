"""Who works on a study: real processes, alive, dead and elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from optuna.trial import TrialState

from automl_prune.study.codec import ORIGIN, OWNER, SEARCH, template
from automl_prune.study.crew import Crew, Member, read_crew
from automl_prune.study.leases import Owner
from automl_prune.study.ledger import Ledger
from automl_prune.study.runner import run_study
from automl_prune.study.storage import open_storage
from tests.study.processes import kill, lines, start_worker, wait_for_end, wait_until
from tests.study.synthetic import evaluate, propose, spec


def _crew(directory: Path, requested: int = 6) -> Crew:
    return read_crew(open_storage(None, directory), "synthetic", requested)


def test_a_worker_is_seen_at_its_trial_and_when_it_has_died(tmp_path: Path) -> None:
    process = start_worker(tmp_path, 6, seconds=600)
    wait_until(lambda: bool(lines(tmp_path, "start")), process)
    (member,) = _crew(tmp_path).members
    assert (member.pid, member.trial, member.attempt, member.presence) == (process.pid, 0, 1, "here")
    assert member.since
    kill(process)
    crew = _crew(tmp_path)
    assert [member.presence for member in crew.members] == ["gone"]
    assert crew.trials_per_hour is None
    wait_for_end(start_worker(tmp_path, 6))
    crew = _crew(tmp_path)
    assert (crew.members, crew.retries) == ((), 1)
    assert crew.seconds_per_trial is not None
    assert json.loads(json.dumps(crew.to_json()))["retries"] == 1


def test_a_worker_of_another_machine_is_elsewhere(tmp_path: Path) -> None:
    storage = open_storage(None, tmp_path)
    run_study(spec(2), storage, propose, evaluate)
    ledger = Ledger(storage, "synthetic")
    owner = Owner("node7", "boot/1", 4711, "1", "cuda:1", "2026-01-01T00:00:00+00:00")
    ledger.add(template(TrialState.RUNNING, {}, {OWNER: owner.to_json(), ORIGIN: SEARCH}))
    (member,) = _crew(tmp_path).members
    assert (member.host, member.pid, member.device, member.presence) == ("node7", 4711, "cuda:1", "elsewhere")
    assert member.since == owner.since


def test_the_pace_is_that_of_those_who_work() -> None:
    def member(presence: str) -> Member:
        return Member("host", 1, "cpu", "", 0, 1, 1.0, presence)  # type: ignore[arg-type]  # a literal

    crew = Crew((member("here"), member("elsewhere"), member("gone")), 0, 30.0)
    assert crew.trials_per_hour == 240
    assert crew.seconds_left(8) == 120
    assert Crew((), 0, 30.0).seconds_left(8) is None
    assert Crew((member("here"),), 0, None).trials_per_hour is None
