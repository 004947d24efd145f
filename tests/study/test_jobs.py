"""Jobs of a study, done by real processes that are killed: each is done once, and none is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial

from automl_prune.errors import EvaluationError, StudyError
from automl_prune.study.jobs import Job, Jobs, hands_out, read_jobs
from automl_prune.study.leases import Watch
from automl_prune.study.ledger import Ledger
from automl_prune.study.runner import start_study
from automl_prune.study.storage import open_storage
from tests.study.processes import kill, lines, start, wait_for_end, wait_until
from tests.study.synthetic import spec

STUDY = "synthetic"


def attend(directory: Path, attempts: int = 3, patience: float = 0.0) -> None:
    """A worker: job ``n`` takes until the file ``n`` is there; one that is ``"broken"`` fails."""
    jobs = Jobs(open_storage(None, directory), STUDY, "cpu", attempts=attempts)

    def do(order: Mapping[str, Any]) -> Mapping[str, Any]:
        note(directory, f"start {order['n']}")
        if order["n"] == "broken":
            raise EvaluationError("it diverged")
        while not (directory / f"{order['n']}").exists():
            time.sleep(0.01)
        return {"square": order["n"] ** 2}

    note(directory, f"concluded {jobs.attend(do, patience)}")


def host(directory: Path, count: int) -> None:
    """The search: offers as many jobs, and does what is left."""
    jobs = Jobs(open_storage(None, directory), STUDY, host=True)
    with jobs.hosting():
        jobs.offer({f"job {n}": {"n": n} for n in range(count)})
        jobs.work(lambda order: {"square": order["n"] ** 2} if wait_for(directory / "go") else {})


def wait_for(path: Path) -> bool:
    while not path.exists():
        time.sleep(0.01)
    return True


def note(directory: Path, line: str) -> None:
    with (directory / "log").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    start_study(spec(4), open_storage(None, tmp_path))
    return tmp_path


def offering(directory: Path, *numbers: Any) -> Jobs:
    jobs = Jobs(open_storage(None, directory), STUDY, host=True)
    jobs.offer({f"job {n}": {"n": n} for n in numbers})
    return jobs


def found(directory: Path) -> list[Job]:
    return list(read_jobs(open_storage(None, directory), STUDY))


def pids(directory: Path) -> set[int | None]:
    """Who works on a job."""
    return {job.member.pid for job in found(directory) if job.member}


def test_workers_and_host_share_the_jobs_and_one_that_is_killed_loses_none(study: Path) -> None:
    offering(study)  # so that workers can wait
    assert hands_out(open_storage(None, study), STUDY)
    search = start(host, study, 6)
    wait_until(lambda: search.pid in pids(study), search)  # it has one, and does not finish it
    victim = start(attend, study)
    wait_until(lambda: bool(lines(study, "start")), victim)
    (taken,) = lines(study, "start")
    survivor = start(attend, study)
    wait_until(lambda: len(lines(study, "start")) == 2, survivor)
    assert pids(study) == {process.pid for process in (search, victim, survivor)}
    kill(victim)
    for n in range(6):
        (study / f"{n}").touch()
    wait_until(lambda: sum(job.finished for job in found(study)) == 5, survivor)
    (study / "go").touch()
    wait_for_end(search)
    wait_for_end(survivor)
    assert [job.result for job in found(study)] == [{"square": n**2} for n in range(6)]
    assert len(lines(study, "start")) == 6, "five jobs, one of them twice"
    assert lines(study, "start").count(taken) == 2
    assert lines(study, "concluded") == ["concluded True"]


def test_a_job_that_kills_its_workers_is_set_aside_but_not_for_the_deaths_of_the_host(study: Path) -> None:
    offering(study, 0)
    for _ in range(2):
        search = start(host, study, 1)
        wait_until(lambda pid=search.pid: pid in pids(study), search)  # type: ignore[misc]  # bound
        kill(search)
    for deaths in (1, 2):
        worker = start(attend, study, attempts=2)
        wait_until(lambda count=deaths: len(lines(study, "start")) == count, worker)  # type: ignore[misc]  # bound
        kill(worker)
    wait_for_end(start(attend, study, attempts=2))
    (job,) = found(study)
    assert job.poison
    assert job.reason is not None
    assert job.reason.startswith("its worker died 2 times")
    assert lines(study, "concluded") == ["concluded False"], "the host is gone"


def test_an_interrupted_worker_hands_its_job_back(study: Path) -> None:
    offering(study, 0)
    for count in range(1, 4):  # three deaths would set it aside
        worker = start(attend, study)
        wait_until(lambda count=count: len(lines(study, "start")) == count, worker)  # type: ignore[misc]  # bound
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGINT)
        wait_for_end(worker, exitcode=1)
    assert [(job.state, job.member) for job in found(study)] == [("waiting", None)]


def test_what_is_offered_again_is_done_once_and_what_failed_is_tried_again(study: Path) -> None:
    jobs = offering(study, 0, "broken")
    did: list[Any] = []

    def do(order: Mapping[str, Any]) -> Mapping[str, Any]:
        did.append(order["n"])
        if did.count("broken") == 1:
            raise EvaluationError("it diverged")
        return {}

    jobs.work(do)
    jobs.work(do)
    assert did == [0, "broken"]
    assert [(job.state, job.reason) for job in found(study)] == [("complete", None), ("failed", "it diverged")]
    jobs.offer({job.key: job.order for job in reversed(found(study))})
    assert [job.state for job in jobs.look()] == ["waiting", "complete"]
    jobs.work(do)
    assert did == [0, "broken", "broken"]
    assert {job.state for job in found(study)} == {"complete"}


def test_the_study_beside_is_no_study_of_its_own(study: Path) -> None:
    assert read_jobs(open_storage(None, study), STUDY) == ()
    offering(study, 0)
    assert Ledger(open_storage(None, study), None).name == STUDY


def test_a_study_has_one_search_at_a_time(study: Path) -> None:
    process = start(host, study, 1)
    wait_until(lambda: bool(read_jobs(open_storage(None, study), STUDY)), process)
    second = Jobs(open_storage(None, study), STUDY, host=True)
    with (
        pytest.raises(StudyError, match=rf"process {process.pid} on .* is searching in this study; join it"),
        second.hosting(),
    ):
        pass
    assert len(read_jobs(open_storage(None, study), STUDY)) == 1, "what it offers stays"
    (study / "go").touch()
    wait_for_end(process)
    with second.hosting():
        pass


def test_a_search_on_another_machine_has_a_lease_to_show_that_it_lives(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = 0.8
    first, second = (Jobs(open_storage(None, study), STUDY, host=True, lease=lease) for _ in range(2))
    first._owner = {**first._owner, "host": "elsewhere"}
    with first.hosting(), pytest.raises(StudyError, match=r"process \d+ on elsewhere is searching"), second.hosting():
        pass
    lost = Jobs(open_storage(None, study), STUDY, host=True, lease=3600.0)
    lost._owner = first._owner
    with pytest.raises(StudyError, match="left alone"), lost.hosting():
        raise StudyError("left alone")  # without a word, as if killed: no beat follows
    looks, is_stale = [], Watch.is_stale

    def looked(watch: Watch, trial: FrozenTrial) -> bool:
        looks.append(is_stale(watch, trial))
        return looks[-1]

    monkeypatch.setattr(Watch, "is_stale", looked)
    with second.hosting():
        assert (looks[0], looks[-1]) == (False, True), "it is waited for, then taken for gone"


def test_a_search_that_failed_may_be_begun_again_in_the_same_process(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Jobs(open_storage(None, study), STUDY, host=True)
    with pytest.raises(StudyError, match="the storage is away"), jobs.hosting():
        raise StudyError("the storage is away")
    monkeypatch.setattr(Watch, "is_stale", lambda *_: pytest.fail("a lease is waited for"))
    with Jobs(open_storage(None, study), STUDY, host=True).hosting():
        pass


def test_a_search_that_ends_while_it_is_waited_for_is_left_as_it_ended(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (Jobs(open_storage(None, study), STUDY, host=True, lease=0.4) for _ in range(2))
    first._owner = {**first._owner, "host": "elsewhere"}
    with pytest.raises(StudyError, match="left alone"), first.hosting():
        raise StudyError("left alone")
    sleep = time.sleep
    waited: list[float] = []

    def conclude(seconds: float) -> None:
        if not waited:
            first.dismiss()
        waited.append(seconds)
        sleep(seconds)

    monkeypatch.setattr("automl_prune.study.jobs.time.sleep", conclude)
    with second.hosting():
        assert len(waited) == 1
