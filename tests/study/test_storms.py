"""Many workers that are killed at random, on storages that tear and stop: exactly the requested trials, none twice.

Every test runs once in a short form with the suite, and in its long form with ``make test-faults``.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from automl_prune.study.journal import JOURNAL, JournalFile
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.storage import open_storage
from tests.study.mariadb import MariaDB, mariadb
from tests.study.postgresql import Server, postgresql
from tests.study.processes import check_exact, lines, start_worker, wait_for_end, wait_until

LONG = pytest.mark.faults
pytestmark = pytest.mark.timeout(1800)  # minutes, where the machine is shared


@dataclass(frozen=True)
class Storm:
    """What a test puts up with: workers, trials, how many workers are killed, and seconds of an evaluation."""

    workers: int = 8
    trials: int = 60
    kills: int = 25
    seconds: float = 0.3

    @classmethod
    def of(cls, seed: int) -> Storm:
        return cls() if seed else cls(workers=4, trials=15, kills=4, seconds=0.1)


class Crew:
    """Workers of one study; whoever is killed is replaced. Nothing is ever set aside: here the deaths are chance."""

    def __init__(self, directory: Path, storm: Storm, seed: int, url: str | None = None) -> None:
        self.directory, self.storm, self.url = directory, storm, url
        self.choose = random.Random(seed)
        self.hired = self.killed = 0
        self.workers: list[BaseProcess] = []
        self.numbers: dict[BaseProcess, int] = {}
        for _ in range(storm.workers):
            self.hire()

    def hire(self) -> None:
        options = {"seconds": self.storm.seconds, "lease": 10, "attempts": 10**6, "url": self.url}
        self.workers.append(start_worker(self.directory, self.storm.trials, worker=self.hired, **options))
        self.numbers[self.workers[-1]] = self.hired
        self.hired += 1

    def wait_for_all(self) -> None:
        """Until every worker has opened the storage: one that cannot be reached from the start is an error at once."""
        for worker in self.workers:
            wait_until(partial(self._has_opened, worker), worker)

    def _has_opened(self, worker: BaseProcess) -> bool:
        # or has come to the end of the study since
        return f"opened {self.numbers[worker]}" in lines(self.directory, "opened", "events") or worker.exitcode == 0

    def wait_for_ends(self, share: float) -> None:
        """Until this share of the trials has been evaluated, or the study is finished."""
        last = self.workers[-1]  # is not killed meanwhile
        wait_until(
            lambda: len(lines(self.directory, "end")) >= share * self.storm.trials or last.exitcode == 0,
            last,
        )

    def kill_one(self) -> None:
        """At any point of an evaluation and of its storing; a worker that has seen all trials finished is let go."""
        time.sleep(self.choose.uniform(0, self.storm.seconds))
        victim = self.workers.pop(self.choose.randrange(len(self.workers)))
        victim.kill()
        victim.join()
        assert victim.exitcode in (0, -signal.SIGKILL)
        self.killed += victim.exitcode != 0
        self.hire()

    def finish(self) -> StudyRecord:
        for worker in self.workers:
            wait_for_end(worker)
        with closing(open_storage(self.url, self.directory)) as storage:
            return read_study(storage)


def report(record: StudyRecord, crew: Crew) -> None:
    again = sum(trial.attempt - 1 for trial in record.trials)
    ignored = len(lines(crew.directory, "ignored", "events"))
    print(
        f"{len(record.trials)} trials complete, {crew.killed} workers killed, {again} attempts lost, {ignored} ignored"
    )
    assert crew.killed, "the study was over too soon to show anything"


SERVERS = {"postgresql": "postgresql_server", "mariadb": "mariadb_server"}


@pytest.fixture(scope="module")
def postgresql_server() -> Iterator[Server]:
    with postgresql() as started:
        yield started


@pytest.fixture(scope="module")
def mariadb_server() -> Iterator[MariaDB]:
    with mariadb() as started:
        yield started


@pytest.mark.parametrize(
    ("storage", "seed"),
    [
        pytest.param("mariadb", 0),
        *(pytest.param(storage, seed, marks=LONG) for storage in (*SERVERS, "journal") for seed in range(1, 11)),
    ],
)
def test_workers_killed_at_random_reach_the_exact_total(
    storage: str, seed: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    storm = Storm.of(seed)
    url = None if storage == "journal" else request.getfixturevalue(SERVERS[storage]).new_database()
    crew = Crew(tmp_path, storm, seed, url)
    for number in range(storm.kills):
        crew.wait_for_ends((number + 1) / (storm.kills + 2))
        crew.kill_one()
    record = crew.finish()
    check_exact(record, tmp_path, storm.trials)
    report(record, crew)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=LONG) for seed in range(1, 11))])
def test_journal_torn_again_and_again_reaches_the_exact_total(seed: int, tmp_path: Path) -> None:
    storm = Storm.of(seed)
    crew = Crew(tmp_path, storm, seed)
    for number in range(storm.kills):
        crew.wait_for_ends((number + 1) / (storm.kills + 2))
        with JournalFile(tmp_path / JOURNAL).locked() as descriptor:  # what a writer leaves that dies in a write
            os.write(descriptor, b'{"op_code":8,"worker_id":"torn in the middle of a rec')
        crew.kill_one()
    record = crew.finish()
    check_exact(record, tmp_path, storm.trials)
    assert len(list(tmp_path.glob("*.torn-*"))) >= storm.kills, "a real kill may tear one more"
    report(record, crew)


@pytest.mark.parametrize(("outage", "seed"), [(1, 0), pytest.param(30, 1, marks=LONG)])
def test_database_that_stops_twice_loses_nothing(
    outage: float, seed: int, tmp_path: Path, postgresql_server: Server
) -> None:
    storm = Storm.of(seed)
    crew = Crew(tmp_path, storm, seed, postgresql_server.new_database())
    for part in (1, 2):
        crew.wait_for_ends(part / 3)
        crew.wait_for_all()
        postgresql_server.stop()
        time.sleep(outage)
        postgresql_server.start()
        crew.kill_one()
    record = crew.finish()
    check_exact(record, tmp_path, storm.trials)
    report(record, crew)
