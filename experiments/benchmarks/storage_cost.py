"""What a storage costs per trial, with many workers; ``scaling.py storage`` runs it and keeps the results.

Workers search as always, but an evaluation is a sleep, of half to one and a half times the mean: evaluations that all
take the same would have everybody queue at the same moment again and again. Counted is the time that they spend in
calls of the storage, waiting for locks and for the server included, over all workers and divided by the trials; beside
it the processor's time of the same calls, and that of the whole worker (strategy, records, leases), which a busy
machine does not stretch. All workers begin at one moment; a worker's first trial is not counted. PostgreSQL is a
server of the benchmark's own with its default durability (fsync). Statements are those of the workers to the database;
behind the proxy, the proxy's own are not counted.

``optuna`` is the baseline: Optuna's own ask and tell on the same PostgreSQL with as many parameters, its random sampler
and one user attribute. It has no leases, retries or exact totals, and reads no trial but its own.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, RDBStorage, get_storage
from sqlalchemy import event
from sqlalchemy.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tests' synthetic search and their PostgreSQL

from automl_prune.candidate import Candidate  # noqa: E402
from automl_prune.evaluation import Evaluation  # noqa: E402
from automl_prune.evaluation.evaluator import Climb  # noqa: E402
from automl_prune.study.codec import directions  # noqa: E402
from automl_prune.study.distributions import distributions  # noqa: E402
from automl_prune.study.runner import run_study  # noqa: E402
from automl_prune.study.spec import StudySpec  # noqa: E402
from automl_prune.study.storage import open_storage, quiet  # noqa: E402
from tests.study.postgresql import postgresql  # noqa: E402
from tests.study.synthetic import evaluate, propose, spec  # noqa: E402

EVALUATION_SECONDS = 5.0
GROUPS = 40
"""Channel groups of the search; each is a parameter."""
STORAGES = ("optuna", "postgresql", "proxy", "journal")
SETTINGS = "-c listen_addresses='' -c shared_buffers=128MB -c max_connections=200"


@dataclass(frozen=True)
class Plan:
    """What every worker is told.

    Attributes:
        alone: Whether it is Optuna alone.
        url: Of the storage; None for a journal.
        folder: Of the journal.
        workers: How many there are.
        history: Trials that were finished before.
        trials: Trials to be finished beyond those.
        seconds: Of an evaluation.
    """

    alone: bool
    url: str | None
    folder: Path
    workers: int
    history: int
    trials: int
    seconds: float


class Meter:
    """What a worker has spent since its first evaluation."""

    def __init__(self, worker: int) -> None:
        self._evaluated = False
        self._random = random.Random(worker)
        self._reset()

    def _reset(self) -> None:
        self.waited = self.processor = self.calls = self.statements = 0.0
        self._began = time.process_time()

    def evaluate(self, seconds: float) -> None:
        """An evaluation of so many seconds on average; what came before the first is forgotten."""
        if not self._evaluated:
            self._evaluated = True
            self._reset()
        time.sleep(seconds * self._random.uniform(0.5, 1.5))

    def row(self) -> tuple[float, ...]:
        """Seconds in calls of the storage, processor's seconds in them and in all, calls, statements."""
        return self.waited, self.processor, time.process_time() - self._began, self.calls, self.statements


def storage_cost(kind: str, workers: int, trials: int, seconds: float, history: int) -> dict[str, Any]:
    """The cost per trial of one kind of storage with so many workers, beside what it was measured with."""
    with _place(kind) as (url, folder):
        plan = Plan(kind == "optuna", url, folder, workers, history, trials, seconds)
        _begin(plan)  # the study has a past before anyone counts
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["storage_cost"])
        answers, together = context.SimpleQueue(), context.Barrier(workers)
        processes = [context.Process(target=_work, args=(n, plan, together, answers)) for n in range(workers)]
        for process in processes:
            process.start()
        spent = [answers.get() for _ in processes]
        for process in processes:
            process.join()
    counted = trials - workers
    waited, processor, whole, calls, statements = (sum(column) / counted for column in zip(*spent, strict=True))
    return {
        "storage": kind,
        "workers": workers,
        "trials": trials,
        "parameters": len(_spec(1, 0).parameters),
        "history": history,
        "evaluation_seconds": seconds,
        "storage_seconds_per_trial": waited,
        "processor_seconds_per_trial": processor,
        "worker_processor_seconds_per_trial": whole,
        "calls_per_trial": calls,
        "statements_per_trial": statements,
        "share_of_evaluation": waited / EVALUATION_SECONDS,
    }


def _spec(requested: int, worker: int) -> StudySpec:
    return replace(spec(requested, count=GROUPS, worker=worker, strategy="random"), baselines=())


def _begin(plan: Plan) -> None:
    if plan.alone:
        with quiet():
            study = optuna.create_study(storage=_database(plan), study_name="alone", directions=_directions())
        _ask_and_tell(study, plan.history, lambda: None)
    else:
        with closing(open_storage(plan.url, plan.folder)) as storage:
            run_study(_spec(plan.history, 0), storage, propose, evaluate)


def _work(number: int, plan: Plan, together: Any, answers: Any) -> None:
    meter = Meter(number)

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        meter.statements += 1

    def sleep(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        meter.evaluate(plan.seconds)
        return evaluate(candidate, seed, climb)

    if plan.alone:
        study = optuna.load_study(storage=_timed(get_storage(_database(plan)), meter), study_name="alone")
        together.wait()
        _ask_and_tell(study, plan.trials // plan.workers, lambda: meter.evaluate(plan.seconds))
    else:
        with closing(open_storage(plan.url, plan.folder)) as storage:
            timed = replace(storage, backend=_timed(storage.backend, meter))
            together.wait()
            run_study(_spec(plan.history + plan.trials, number), timed, propose, sleep)
    answers.put(meter.row())


def _database(plan: Plan) -> RDBStorage:
    assert plan.url is not None
    return RDBStorage(plan.url, engine_kwargs={"pool_pre_ping": True, "pool_size": 2, "max_overflow": 2})


def _directions() -> list[Any]:
    return list(directions(_spec(1, 0).context))


def _ask_and_tell(study: optuna.Study, trials: int, work: Callable[[], None]) -> None:
    space = distributions(_spec(1, 0).parameters)
    study.sampler = optuna.samplers.RandomSampler()
    for _ in range(trials):
        trial = study.ask(space)
        work()
        evaluation = evaluate(propose(trial.params), 0)
        trial.set_user_attr("result", evaluation.to_json())
        with quiet():
            study.tell(trial, [evaluation.rungs[0].score.value, evaluation.costs["macs"].value])


def _timed(storage: BaseStorage, meter: Meter) -> BaseStorage:
    """A storage that tells ``meter`` the seconds, the processor's seconds and the number of its calls."""

    def method(name: str) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            start, processor = time.perf_counter(), time.thread_time()
            try:
                return getattr(storage, name)(*args, **kwargs)
            finally:
                meter.waited += time.perf_counter() - start
                meter.processor += time.thread_time() - processor
                meter.calls += 1

        return call

    names = [name for name in dir(BaseStorage) if not name.startswith("_")]
    return type("Timed", (BaseStorage,), {name: method(name) for name in names})()  # type: ignore[no-any-return]


@contextmanager
def _place(kind: str) -> Iterator[tuple[str | None, Path]]:
    """A new storage: its URL, None for a journal, and the journal's folder."""
    with tempfile.TemporaryDirectory() as folder:
        if kind == "journal":
            yield None, Path(folder)
            return
        with postgresql(SETTINGS) as server:
            url = server.new_database()
            if kind != "proxy":
                yield url, Path(folder)
                return
            with _proxy(url) as proxied:
                yield proxied, Path(folder)


@contextmanager
def _proxy(url: str) -> Iterator[str]:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "automl_prune", "storage-proxy", "--storage", url, "--port", str(port)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield f"grpc://localhost:{port}"
    finally:
        process.terminate()
        process.communicate()
