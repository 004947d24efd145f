"""How a study scales: trials per hour with one and two workers, and what a storage costs per trial with many.

    python experiments/benchmarks/scaling.py workers [--blocks 4 --trials 20]
    python experiments/benchmarks/scaling.py storage [--trials 300 --workers 1 8 32 --history 3000]
    python experiments/benchmarks/scaling.py table

``workers``: the committed ResNet-20 at rung 0 (reconstruction, recalibration, score on validation data; no training),
one thread per worker. Blocks with one and with two workers take turns, so that a machine that is busy is busy for
both. The rate counts completed trials between the moment when every worker has completed its first and the moment
when the first of them stops: starting and waiting for the last do not count.

``storage``: workers that search as always, but whose evaluation is a sleep. Counted is the time that they spend in
calls of the storage, waiting for locks and for the server included, over all workers and divided by the trials; beside
it the processor's time of the same calls, which a busy machine does not stretch. A worker's first trial is not counted.
PostgreSQL is a server of the benchmark's own with its default durability (fsync). Statements are those of the workers
to the database; behind the proxy, the proxy's own are not counted. With one worker evaluations may be shorter
(``--seconds``): the storage does not notice.

Results are merged into ``results/scaling.json``; the table is computed from it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from optuna.storages import BaseStorage
from sqlalchemy import event
from sqlalchemy.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the tests' synthetic search and their PostgreSQL

from automl_prune import api  # noqa: E402
from automl_prune.candidate import Candidate  # noqa: E402
from automl_prune.config import Config  # noqa: E402
from automl_prune.evaluation import Evaluation  # noqa: E402
from automl_prune.evaluation.evaluator import Climb  # noqa: E402
from automl_prune.files import read_json, write_json, write_text  # noqa: E402
from automl_prune.launchers import LocalProcesses  # noqa: E402
from automl_prune.session import environment  # noqa: E402
from automl_prune.study.codec import REQUESTED  # noqa: E402
from automl_prune.study.ledger import Ledger  # noqa: E402
from automl_prune.study.runner import run_study  # noqa: E402
from automl_prune.study.storage import open_storage  # noqa: E402
from tests.study.postgresql import postgresql  # noqa: E402
from tests.study.synthetic import evaluate, propose, spec  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "scaling.json"
EVALUATION_SECONDS = 5.0
GROUPS = 40
"""Channel groups of the search; each is a parameter."""
STORAGES = ("journal", "postgresql", "proxy")
SETTINGS = "-c listen_addresses='' -c shared_buffers=128MB -c max_connections=200"


def main() -> None:
    arguments = _arguments()
    if arguments.what == "workers":
        _merge("workers", _throughput(arguments.trials, arguments.blocks))
    elif arguments.what == "storage":
        for kind in arguments.storages:
            for workers in arguments.workers:
                row = _storage_cost(kind, workers, arguments.trials, arguments.seconds, arguments.history)
                print(json.dumps(row), flush=True)
                _merge(f"storage {kind} {workers}", row)
    table = _table(read_json(RESULTS))
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


# ---- trials per hour


def _throughput(trials: int, blocks: int) -> dict[str, Any]:
    os.environ["OMP_NUM_THREADS"] = "1"  # a single worker would take both cores
    seconds, counts = {1: 0.0, 2: 0.0}, {1: 0, 2: 0}
    rates: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        places = {count: _prepared(Path(folder) / f"{count}") for count in (1, 2)}
        for block in range(1, blocks + 1):
            for count, run_dir in places.items():
                before = {trial.number for trial in api.read(run_dir).trials if trial.state == "complete"}
                wanted = len(before) + trials * count
                with closing(open_storage(None, run_dir)) as storage:  # what the study is read up to
                    Ledger(storage, None).set_attribute(REQUESTED, wanted)
                arguments = {"run_dir": str(run_dir), "requested": wanted}
                LocalProcesses(count).run("automl_prune.joining:work", arguments, print, lambda: None)
                done, took = _steady(run_dir, before)
                counts[count] += done
                seconds[count] += took
                rates.append({"block": block, "workers": count, "trials": done, "seconds": took})
                print(json.dumps(rates[-1]), flush=True)
    hourly = {count: 3600 * counts[count] / seconds[count] for count in seconds}
    return {
        "model": "fashion_mnist_resnet20",
        "blocks": rates,
        "trials_per_hour": {str(count): rate for count, rate in hourly.items()},
        "speedup": hourly[2] / hourly[1],
    }


def _prepared(run_dir: Path) -> Path:
    """A run directory whose search has just begun, with the least that a search can do."""
    overrides = (
        "search.strategy=random",
        "evaluation={finetune_steps: 0, finalists: 0}",
    )
    config = Config.load(ROOT / "experiments" / "fashion_mnist_resnet20" / "config.yaml", overrides)
    api.search_config(config, run_dir, trials=1)
    return run_dir


def _steady(run_dir: Path, before: set[int]) -> tuple[int, float]:
    """Trials completed while all workers worked, and the seconds of that."""
    ends: dict[str, list[float]] = {}
    for trial in api.read(run_dir).trials:
        new = trial.number not in before and trial.reused_from is None
        if new and trial.evaluation is not None and trial.finished is not None:
            ends.setdefault(trial.evaluation.worker, []).append(trial.finished.timestamp())
    start, end = max(min(times) for times in ends.values()), min(max(times) for times in ends.values())
    return sum(start < moment <= end for times in ends.values() for moment in times), end - start


# ---- what a storage costs


def _storage_cost(kind: str, workers: int, trials: int, seconds: float, history: int) -> dict[str, Any]:
    with _place(kind) as (url, folder):
        with closing(open_storage(url, folder)) as storage:  # the study has a past before anyone counts
            run_study(_spec(history, 0), storage, propose, evaluate)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.study.synthetic"])
        answers = context.SimpleQueue()
        start = time.monotonic()
        given = (url, folder, history + trials, seconds, answers)
        processes = [context.Process(target=_work, args=(number, *given)) for number in range(workers)]
        for process in processes:
            process.start()
        spent = [answers.get() for _ in processes]
        for process in processes:
            process.join()
        wall = time.monotonic() - start
    counted = trials - workers
    waited, processor, calls, statements = (sum(column) / counted for column in zip(*spent, strict=True))
    return {
        "storage": kind,
        "workers": workers,
        "trials": trials,
        "parameters": len(_spec(1, 0).parameters),
        "history": history,
        "evaluation_seconds": seconds,
        "storage_seconds_per_trial": waited,
        "processor_seconds_per_trial": processor,
        "calls_per_trial": calls,
        "statements_per_trial": statements,
        "share_of_evaluation": waited / EVALUATION_SECONDS,
        "wall_seconds": wall,
    }


def _spec(requested: int, worker: int) -> Any:
    return replace(spec(requested, count=GROUPS, worker=worker, strategy="random"), baselines=())


def _work(number: int, url: str | None, folder: Path, trials: int, seconds: float, answers: Any) -> None:
    spent = [0.0, 0.0, 0.0, 0.0]
    first = True

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        spent[3] += 1

    with closing(open_storage(url, folder)) as storage:

        def sleep(candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
            nonlocal first
            if first:
                first, spent[:] = False, [0.0, 0.0, 0.0, 0.0]
            time.sleep(seconds)
            return evaluate(candidate, seed, climb)

        timed = replace(storage, backend=_timed(storage.backend, spent))
        run_study(_spec(trials, number), timed, propose, sleep)
    answers.put(tuple(spent))


def _timed(storage: BaseStorage, spent: list[float]) -> BaseStorage:
    """A storage that adds to ``spent`` the seconds, the processor's seconds and the number of its calls."""

    def method(name: str) -> Callable[..., Any]:
        def call(self: object, *args: Any, **kwargs: Any) -> Any:
            start, processor = time.perf_counter(), time.thread_time()
            try:
                return getattr(storage, name)(*args, **kwargs)
            finally:
                spent[0] += time.perf_counter() - start
                spent[1] += time.thread_time() - processor
                spent[2] += 1

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
            if kind == "postgresql":
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


# ---- results


def _merge(key: str, value: dict[str, Any]) -> None:
    document = read_json(RESULTS) if RESULTS.exists() else {}
    load = os.getloadavg()[1]
    document[key] = value | {"environment": environment(torch.device("cpu")), "load_of_the_last_5_minutes": load}
    write_json(RESULTS, document)


def _table(document: dict[str, Any]) -> str:
    lines = ["# Scaling", "", "Written by `scaling.py` from `scaling.json`; its docstring says what is measured.", ""]
    if found := document.get("workers"):
        lines += [f"## Workers: {found['model']}, rung 0, one thread each", ""]
        lines += ["| workers | trials | seconds | trials per hour |", "|---|---|---|---|"]
        for count, rate in found["trials_per_hour"].items():
            mine = [block for block in found["blocks"] if str(block["workers"]) == count]
            trials, seconds = sum(b["trials"] for b in mine), sum(b["seconds"] for b in mine)
            lines.append(f"| {count} | {trials} | {seconds:.0f} | {rate:.0f} |")
        lines += ["", f"Two workers do {found['speedup']:.2f} times what one does. {_circumstances(found)}", ""]
    rows = [value for key, value in document.items() if key.startswith("storage ")]
    if rows:
        lines += ["## Storage", ""]
        lines += [
            "| storage | workers | trials | parameters | calls | statements | ms per trial | of the processor | "
            "share of 5 s | load |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for row in sorted(rows, key=lambda row: (STORAGES.index(row["storage"]), row["workers"], "commit" not in row)):
            before = f" (before, {row['commit']})" if "commit" in row else ""
            lines.append(
                f"| {row['storage']}{before} | {row['workers']} | {row['trials']} | {row['parameters']} | "
                f"{row['calls_per_trial']:.0f} | {row['statements_per_trial']:.0f} | "
                f"{1000 * row['storage_seconds_per_trial']:.0f} | "
                f"{1000 * row['processor_seconds_per_trial']:.0f} | {row['share_of_evaluation']:.2%} | "
                f"{row['load_of_the_last_5_minutes']:.1f} |"
            )
        cpus = rows[0]["environment"]["cpus"]
        note = f"Measured on {cpus} cores, each row under its own load: much above {cpus}, times are too long."
        lines += ["", note, ""]
    return "\n".join(lines)


def _circumstances(row: dict[str, Any]) -> str:
    cpus, load = row["environment"]["cpus"], row["load_of_the_last_5_minutes"]
    return f"Measured on {cpus} cores with a load of {load:.1f}: much above the number of cores, figures are too high."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    workers = what.add_parser("workers")
    workers.add_argument("--trials", type=int, default=20, help="per worker and block")
    workers.add_argument("--blocks", type=int, default=4)
    storage = what.add_parser("storage")
    storage.add_argument("--trials", type=int, default=300)
    storage.add_argument("--seconds", type=float, default=EVALUATION_SECONDS, help="of an evaluation")
    storage.add_argument("--history", type=int, default=1, help="trials that are finished before anyone counts")
    storage.add_argument("--workers", type=int, nargs="+", default=[1, 8, 32])
    storage.add_argument("--storages", nargs="+", default=list(STORAGES), choices=STORAGES)
    what.add_parser("table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
