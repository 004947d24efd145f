"""How a study scales: trials per hour with one and two workers, and what a storage costs per trial with many.

    python experiments/benchmarks/scaling.py workers [--blocks 4 --trials 20]
    python experiments/benchmarks/scaling.py storage [--storages journal --workers 1 8 32 --trials 300 --history 3000]
    python experiments/benchmarks/scaling.py table

``workers``: the committed ResNet-20 at rung 0 (reconstruction, recalibration, score on validation data; no training),
one thread per worker. Blocks with one and with two workers take turns, so that a machine that is busy is busy for
both. The rate counts completed trials between the moment when every worker has completed its first and the moment
when the first of them stops: starting and waiting for the last do not count.

``storage``: what a study costs a worker beside its evaluations; ``storage_cost.py`` says how that is counted. With one
worker evaluations may be shorter (``--seconds``): the storage does not notice.

Results are merged into ``results/scaling.json``; the table is computed from it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from storage_cost import EVALUATION_SECONDS, STORAGES, storage_cost

from automl_prune import api
from automl_prune.config import Config
from automl_prune.files import read_json, write_json, write_text
from automl_prune.launchers import LocalProcesses
from automl_prune.session import environment
from automl_prune.study.codec import REQUESTED
from automl_prune.study.ledger import Ledger
from automl_prune.study.storage import open_storage

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).parent / "results" / "scaling.json"


def main() -> None:
    arguments = _arguments()
    if arguments.what == "workers":
        _merge("workers", _throughput(arguments.trials, arguments.blocks))
    elif arguments.what == "storage":
        for kind in arguments.storages:
            for workers in arguments.workers:
                row = storage_cost(kind, workers, arguments.trials, arguments.seconds, arguments.history)
                print(json.dumps(row), flush=True)
                _merge(f"storage {kind} {workers} {arguments.history}", row)
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
            "| storage | workers | trials | before them | calls | statements | ms per trial | of the processor | "
            "the whole worker | share of 5 s | load |",
            "|---|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += [_storage_row(row) for row in sorted(rows, key=_order)]
        cpus, parameters = rows[0]["environment"]["cpus"], rows[0]["parameters"]
        lines += ["", f"{parameters} parameters. `optuna` is Optuna's ask and tell alone, without leases, retries or"]
        lines += ["exact totals. `the whole worker` is the processor's time of strategy, records and storage together."]
        lines += [f"Measured on {cpus} cores, each row under its own load: much above {cpus}, times are too long.", ""]
    return "\n".join(lines)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    return STORAGES.index(row["storage"]), row["history"], row["workers"], "commit" not in row


def _storage_row(row: dict[str, Any]) -> str:
    name = f"{row['storage']} (before, {row['commit']})" if "commit" in row else row["storage"]
    whole = row.get("worker_processor_seconds_per_trial")
    return (
        f"| {name} | {row['workers']} | {row['trials']} | {row['history']} | {row['calls_per_trial']:.0f} | "
        f"{row['statements_per_trial']:.0f} | {1000 * row['storage_seconds_per_trial']:.0f} | "
        f"{1000 * row['processor_seconds_per_trial']:.0f} | {'–' if whole is None else f'{1000 * whole:.0f}'} | "
        f"{row['share_of_evaluation']:.2%} | {row['load_of_the_last_5_minutes']:.1f} |"
    )


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
