"""What a study costs beside its evaluations: processor time per trial for every strategy, memory over 1000 trials.

    OMP_NUM_THREADS=1 python experiments/benchmarks/overhead.py

A study is run as the search runs it, in a journal file: strategy, projection onto the budget, identity of the plan,
promotion, records, leases. Only the evaluation is made up from the plan's widths. Beside it, in the same process, rung
0 of the committed ResNet-20 is evaluated for real: a trial's overhead is given as a share of that. Processor time is
counted, because wall time on a shared machine is mostly the others'. A result is stored as soon as it is there, in
``results/overhead.json`` and ``results/overhead.md``; the script goes on where it stopped.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from automl_prune.api.running import study_spec
from automl_prune.candidate import Candidate
from automl_prune.checkpoints import load_weights
from automl_prune.config import Config
from automl_prune.evaluation import Evaluation, RungScore
from automl_prune.evaluation.evaluator import Climb
from automl_prune.files import read_json, write_json, write_text
from automl_prune.session import Session, environment
from automl_prune.study.directory import RunDirectory
from automl_prune.study.runner import run_study
from automl_prune.study.spec import Event
from automl_prune.study.storage import open_storage
from automl_prune.study.strategies import strategies
from automl_prune.tasks import Score
from automl_prune.view import Silent

EXPERIMENT = Path(__file__).parents[1] / "fashion_mnist_resnet20"
RESULTS = Path(__file__).parent / "results"
PAGE = os.sysconf("SC_PAGE_SIZE")
GOAL = 0.02
MEMORY_TRIALS = (100, 1000)


@dataclass
class Probe:
    """Evaluates without a network, and keeps the processor time that is spent in it and the memory at some trials."""

    session: Session
    seconds: float = 0.0
    resident: dict[int, float] = field(default_factory=dict)

    def evaluate(self, candidate: Candidate, seed: int, climb: Climb) -> Evaluation:
        """A score that grows with the widths, less where they are uneven; the plan and its costs are real."""
        start = time.process_time()
        plan = self.session.evaluator.plan(candidate)
        self.seconds += time.process_time() - start  # an evaluation makes its plan too
        costs, dense = plan.costs(), self.session.graph.widths
        kept = [width / dense[name] for name, width in plan.widths.items()]
        value = 0.9 * costs["macs"].ratio ** 0.1 - 0.05 * statistics.pvariance(kept)
        score = Score(value, 5000, 0.005)
        rungs = [RungScore(0, score, 0, 0.0)]
        if climb(score, costs):
            rungs.append(RungScore(1, replace(score, value=(1 + value) / 2), 60, 0.0))
        return Evaluation(candidate, plan.digest, tuple(rungs), costs, seed, "probe")

    def watch(self, event: Event) -> None:
        """Resident memory in MiB after the trials that were asked for."""
        if event.kind in ("complete", "reused") and event.finished in MEMORY_TRIALS:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            self.resident[event.finished] = pages * PAGE / 2**20


def measure(session: Session, config: Config, strategy: str, trials: int) -> tuple[Probe, float]:
    """A whole study in a folder of its own; its probe, and its processor seconds per trial without evaluation."""
    probe = Probe(session)
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder))
        identity = session.identity(strategy=strategy)
        spec = study_spec(session, config.evaluation, identity, "study", directory, {}, strategy=strategy, seed=0)
        start = time.process_time()
        run_study(
            replace(spec, requested=trials),
            open_storage(None, directory.path),
            session.projector.candidate,
            probe.evaluate,
            probe.watch,
            identify=session.evaluator.digest,
        )
        spent = time.process_time() - start - probe.seconds
    return probe, spent / trials


def rung_0(session: Session, repeats: int = 5) -> float:
    """Processor seconds of a real evaluation without training, the median of some at different costs."""
    found = []
    for number in range(repeats):
        candidate = session.projector.uniform(session.space.criteria[0], 1 - 0.1 * number)
        start = time.process_time()
        session.evaluator.evaluate(candidate, 0, lambda score, costs: False)
        found.append(time.process_time() - start)
    return statistics.median(found)


def prepare() -> tuple[Session, Config]:
    config = Config.load(EXPERIMENT / "config.yaml", ["device=cpu"])
    task, model = config.build_task(), config.build_model()
    load_weights(model, EXPERIMENT / "baseline.safetensors")
    session = Session.prepare(
        model, task, config.parsed_budget(), config.load_space(), config.evaluation.recipe(),
        seed=0, device=torch.device("cpu"), view=Silent(),
    )  # fmt: skip
    return session, config


def table(found: dict[str, Any]) -> str:
    """The results in Markdown."""
    lines = [
        "# Overhead of a study",
        "",
        f"Processor time per trial beside the evaluation; goal: under {GOAL:.0%} of rung 0 of ResNet-20 (a parameter "
        "for each of its channel groups and three more). See `overhead.py`.",
        "",
        "| strategy | trials | overhead per trial | rung 0 | share | goal |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in sorted(found["strategies"].items()):
        share = row["overhead_seconds"] / row["rung_0_seconds"]
        lines.append(
            f"| {name} | {row['trials']} | {1000 * row['overhead_seconds']:.0f} ms | {row['rung_0_seconds']:.2f} s "
            f"| {share:.1%} | {'met' if share < GOAL else 'missed'} |"
        )
    if "memory" in found:
        memory = found["memory"]
        few, many = (memory["resident_mib"][str(trials)] for trials in MEMORY_TRIALS)
        lines += [
            "",
            f"Resident memory ({memory['strategy']}): {few:.0f} MiB after {MEMORY_TRIALS[0]} trials, {many:.0f} MiB "
            f"after {MEMORY_TRIALS[1]}: {1024 * (many - few) / (MEMORY_TRIALS[1] - MEMORY_TRIALS[0]):.0f} KiB a trial.",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--gp-trials", type=int, default=60, help="gp proposes for seconds; its cost grows with trials")
    parser.add_argument("--strategies", nargs="*", default=[*(name for name in strategies if name != "gp"), "gp"])
    parser.add_argument("--memory", default="tpe", help="strategy of the study of 1000 trials; empty for none")
    options = parser.parse_args()
    path = RESULTS / "overhead.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {"strategies": {}}
    session, config = prepare()
    found["environment"] = environment(session.device)

    def keep() -> None:
        write_json(path, found)
        write_text(path.with_suffix(".md"), table(found))

    for name in options.strategies:
        trials = options.gp_trials if name == "gp" else options.trials
        if found["strategies"].get(name, {}).get("trials") != trials:
            _, overhead = measure(session, config, name, trials)
            real = rung_0(session)
            found["strategies"][name] = {"trials": trials, "overhead_seconds": overhead, "rung_0_seconds": real}
            print(f"{name}: {1000 * overhead:.0f} ms a trial, rung 0 {real:.2f} s, {overhead / real:.1%}", flush=True)
            keep()
    if options.memory and "memory" not in found:
        probe, _ = measure(session, config, options.memory, MEMORY_TRIALS[-1])
        resident = {str(trials): value for trials, value in probe.resident.items()}
        found["memory"] = {"strategy": options.memory, "resident_mib": resident}
        keep()


if __name__ == "__main__":
    main()
