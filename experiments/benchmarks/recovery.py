"""What a good start is worth after fine-tuning: OBS, reconstructed layer by layer, against L1 with recalibrated norms.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/recovery.py --model fashion_mnist_resnet20

All starts get the same steps (SGD, batches of the experiment, distillation from the dense model) and the same seeds, at
each of several learning rates: a start that is nearly right already wants another rate than one that is not. The rate
is chosen by validation accuracy, and the accuracy of all test images is shown, on which nothing was chosen. Two more
starts say where the difference comes from: the channels of one with the weights of the other. Finished runs are in
``results/recovery.json`` and not repeated; the table is computed from it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

from one_shot import HERE, Bench

from automl_prune.budget import Budget
from automl_prune.compression import choose_widths
from automl_prune.evaluation import FineTuning, Recipe, Teacher, finetune, score
from automl_prune.files import read_json, write_json, write_text
from automl_prune.projection import Projector
from automl_prune.session import environment
from automl_prune.space import Space

RESULTS = HERE / "results" / "recovery.json"
STARTS = {
    "obs, reconstruction and BN": ("obs", Recipe(reconstruct=True, sequential=True)),
    "l1, BN": ("l1", Recipe()),
    "obs, BN": ("obs", Recipe()),
    "l1, reconstruction and BN": ("l1", Recipe(reconstruct=True, sequential=True)),
}
RATES = (0.01, 0.03, 0.1)
EXPLAINING = ("obs, BN", "l1, reconstruction and BN")
"""Starts that only say whether channels or weights make the difference: with one seed, at this budget and length."""
EXPLAINED_BUDGET, EXPLAINED_STEPS = 0.25, 400


def main() -> None:
    arguments = _arguments()
    document = read_json(RESULTS) if RESULTS.is_file() else {"runs": [], "environments": {}}
    runs = document["runs"]
    bench = Bench(arguments.model)
    document["environments"].setdefault(arguments.model, environment(bench.device))
    for budget in arguments.budgets:
        for seed in range(arguments.seeds):
            for steps in [0, *arguments.steps]:
                for start in STARTS:
                    for rate in _rates(runs, arguments.model, start, budget, steps, seed):
                        run = {
                            "model": arguments.model, "start": start, "budget": budget, "steps": steps,
                            "rate": rate, "seed": seed,
                        }  # fmt: skip
                        if not any(run.items() <= known.items() for known in runs):
                            runs.append({**run, **_measure(bench, start, budget, steps, rate, seed)})
                            write_json(RESULTS, document)
                            print(runs[-1], flush=True)
    table = _table(runs)
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _rates(
    runs: list[dict[str, Any]], model: str, start: str, budget: float, steps: int, seed: int
) -> tuple[float | None, ...]:
    """Which rates to run: all with the first seed, with the others the best by its validation accuracy."""
    if not steps:
        return (None,)
    if start in EXPLAINING and (seed or (budget, steps) != (EXPLAINED_BUDGET, EXPLAINED_STEPS)):
        return ()
    if seed == 0:
        return RATES
    tried = [r for r in runs if _key(r) == (model, budget, start, steps) and r["seed"] == 0]
    return (max(tried, key=lambda run: float(run["val"]))["rate"],)


def _key(run: dict[str, Any]) -> tuple[Any, ...]:
    return (run["model"], run["budget"], run["start"], run["steps"])


def _measure(bench: Bench, start: str, budget: float, steps: int, rate: float | None, seed: int) -> dict[str, Any]:
    criterion, recipe = STARTS[start]
    begun = time.process_time()
    evaluator = bench.evaluator([criterion], seed, recipe)
    limits = Budget(macs=budget).limits(bench.graph.dense_costs)
    projector = Projector(bench.graph, Space(criteria=(criterion,)), limits, evaluator.scores)
    small = evaluator.compress(evaluator.plan(choose_widths(projector, criterion, "uniform")))
    if rate is not None:
        finetuning, teacher = FineTuning(steps, rate), Teacher(bench.model)
        small = finetune(small, bench.task, finetuning, seed=seed, device=bench.device, teacher=teacher)
    val, test = (score(small, bench.task, split, bench.device) for split in ("val", "test"))
    seconds = time.process_time() - begun
    return {"val": val.value, "test": test.value, "samples": test.samples, "seconds": seconds}


def _table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "# Recovery",
        "",
        "Test accuracy in % after steps of fine-tuning (SGD, distillation), at the learning rate that is best by the",
        "first seed's validation accuracy; mean over seeds of calibration and fine-tuning. Written by `recovery.py`",
        "from `recovery.json`.",
    ]
    for model, budget in sorted({_key(run)[:2] for run in runs}, key=lambda key: (key[0], -key[1])):
        mine = [run for run in runs if _key(run)[:2] == (model, budget)]
        steps = sorted({run["steps"] for run in mine})
        lines += ["", f"## {model}, {budget:.0%} of the MACs", ""]
        lines += [f"| start | {' | '.join(f'{n} steps' for n in steps)} |", "|---|" + "---|" * len(steps)]
        for start in STARTS:
            shown = [_chosen([r for r in mine if (r["start"], r["steps"]) == (start, n)]) for n in steps]
            lines.append(f"| {start} | {' | '.join(shown)} |")
        lines += ["", "By learning rate, first seed:", ""]
        rows = sorted({(r["start"], r["rate"]) for r in mine if r["rate"] is not None}, key=_by_start)
        lines += [
            f"| start, rate | {' | '.join(f'{n} steps' for n in steps if n)} |",
            "|---|" + "---|" * len(steps[1:]),
        ]
        for start, rate in rows:
            found = {r["steps"]: r["test"] for r in mine if (r["start"], r["rate"], r["seed"]) == (start, rate, 0)}
            shown = [f"{100 * found[n]:.2f}" if n in found else "–" for n in steps if n]
            lines.append(f"| {start}, {rate} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _by_start(row: tuple[str, float]) -> tuple[int, float]:
    return list(STARTS).index(row[0]), row[1]


def _chosen(runs: list[dict[str, Any]]) -> str:
    """The accuracy at the first seed's best rate, over all seeds."""
    if not runs:
        return "–"
    rate = max((r for r in runs if r["seed"] == 0), key=lambda run: float(run["val"]))["rate"]
    values = [100 * run["test"] for run in runs if run["rate"] == rate]
    spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}" + ("" if rate is None else f", rate {rate}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5], help="shares of the dense MACs")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 400, 1200], help="optimiser steps")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, of calibration and fine-tuning")
    return parser.parse_args()


if __name__ == "__main__":
    main()
