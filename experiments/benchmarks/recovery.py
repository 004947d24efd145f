"""What a good start is worth after fine-tuning: OBS, reconstructed layer by layer, against L1 with recalibrated norms.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/recovery.py --model fashion_mnist_resnet20

Both starts get the same steps (SGD at 0.01, batches of the experiment, distillation from the dense model) and the same
seeds; accuracy is that of all test images. Finished runs are in ``results/recovery.json`` and not repeated; the table
is computed from it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from typing import Any

from one_shot import HERE, Bench

from automl_prune.budget import Budget
from automl_prune.compression import choose_widths
from automl_prune.evaluation import FineTuning, Recipe, finetune, score
from automl_prune.files import read_json, write_json, write_text
from automl_prune.projection import Projector
from automl_prune.session import environment
from automl_prune.space import Space

RESULTS = HERE / "results" / "recovery.json"
STARTS = {
    "obs, reconstruction and BN": ("obs", Recipe(reconstruct=True, sequential=True)),
    "l1, BN": ("l1", Recipe()),
}
LEARNING_RATE = 0.01


def main() -> None:
    arguments = _arguments()
    document = read_json(RESULTS) if RESULTS.is_file() else {"runs": [], "environments": {}}
    known = {(r["model"], r["start"], r["budget"], r["steps"], r["seed"]) for r in document["runs"]}
    bench = Bench(arguments.model)
    document["environments"].setdefault(arguments.model, environment(bench.device))
    for seed in range(arguments.seeds):
        for budget in arguments.budgets:
            for steps in [0, *arguments.steps]:
                for start in STARTS:
                    if (arguments.model, start, budget, steps, seed) not in known:
                        document["runs"].append(_run(bench, arguments.model, start, budget, steps, seed))
                        write_json(RESULTS, document)
                        print(document["runs"][-1], flush=True)
    table = _table(document["runs"])
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _run(bench: Bench, model: str, start: str, budget: float, steps: int, seed: int) -> dict[str, Any]:
    criterion, recipe = STARTS[start]
    begun = time.perf_counter()
    evaluator = bench.evaluator(criterion, seed, recipe)
    limits = Budget(macs=budget).limits(bench.graph.dense_costs)
    projector = Projector(bench.graph, Space(criteria=(criterion,)), limits, evaluator.scores)
    small = evaluator.compress(evaluator.plan(choose_widths(projector, criterion, "uniform")))
    if steps:
        finetuning = FineTuning(steps, LEARNING_RATE)
        small = finetune(small, bench.task, finetuning, seed=seed, device=bench.device, teacher=bench.model)
    result = score(small, bench.task, "test", bench.device)
    return {
        "model": model, "start": start, "budget": budget, "steps": steps, "seed": seed, "accuracy": result.value,
        "samples": result.samples, "seconds": time.perf_counter() - begun,
    }  # fmt: skip


def _table(runs: list[dict[str, Any]]) -> str:
    found: dict[tuple[Any, ...], list[float]] = defaultdict(list)
    for run in runs:
        found[run["model"], run["budget"], run["start"], run["steps"]].append(100 * run["accuracy"])
    lines = [
        "# Recovery",
        "",
        f"Test accuracy in % after steps of fine-tuning (rate {LEARNING_RATE}, distillation), mean over seeds. Written",
        "by `recovery.py` from `recovery.json`.",
    ]
    steps = sorted({key[3] for key in found})
    for model, budget in sorted({key[:2] for key in found}, key=lambda key: (key[0], -key[1])):
        lines += ["", f"## {model}, {budget:.0%} of the MACs", ""]
        lines += [f"| start | {' | '.join(f'{n} steps' for n in steps)} |", "|---|" + "---|" * len(steps)]
        for start in STARTS:
            cells = [found.get((model, budget, start, n), []) for n in steps]
            shown = [f"{statistics.mean(c):.2f} (n = {len(c)})" if c else "–" for c in cells]
            lines.append(f"| {start} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5], help="shares of the dense MACs")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 400, 1200], help="optimiser steps")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, of calibration and fine-tuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
