"""How well what is known of a candidate early tells how good it will be after a long fine-tuning.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/rungs.py --candidates 24

Candidates of nearly equal cost are drawn from the default space with a slope over depth, by two criteria: uniform and
globally ranked widths, and random ones. Each is scored on validation data without training, its layers fitted at once
or layer by layer, and after short fine-tunings; and after a long one, which says who is right. All fine-tunings start
from the layer-by-layer fit and see the same batches. Printed and written are Spearman's rank correlations with the long
one, with a bootstrap interval, and what the best by each early score is worth in the end. Scores are kept in
``results/rungs.json``, and candidates added by running the script again.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from one_shot import HERE, Bench
from scipy.stats import spearmanr

from automl_prune.budget import Budget
from automl_prune.candidate import Candidate
from automl_prune.compression import Widths, choose_widths
from automl_prune.evaluation import FineTuning, Recipe, Teacher, finetune, score
from automl_prune.files import read_json, write_json, write_text
from automl_prune.projection import Projector
from automl_prune.seeding import derive_seed
from automl_prune.session import environment
from automl_prune.space import FloatParameter, Space

RESULTS = HERE / "results" / "rungs.json"
WIDTHS: tuple[Widths, ...] = ("uniform", "global")
SHORT, LONG, RATE, LONG_RATE = (20, 60), 400, 0.01, 0.03
AT_ONCE, LAYERWISE = "untrained", "untrained, layer by layer"
SPACE = Space(criteria=("obs", "l1"), target_cost=0.97, depth_slope=0.4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--budget", type=float, default=0.25, help="share of the dense MACs")
    parser.add_argument("--candidates", type=int, default=24)
    arguments = parser.parse_args()
    document = read_json(RESULTS) if RESULTS.is_file() else {"rows": [], "environments": {}}
    bench = Bench(arguments.model)
    document["environments"].setdefault(arguments.model, environment(bench.device))
    measure = _measure(bench, arguments.budget)
    for number in range(arguments.candidates):
        key = {"model": arguments.model, "budget": arguments.budget, "number": number}
        if not any(key.items() <= row.items() for row in document["rows"]):
            document["rows"].append({**key, **measure(number)})
            write_json(RESULTS, document)
            print(document["rows"][-1], flush=True)
    table = _table(document["rows"])
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _measure(bench: Bench, budget: float) -> Callable[[int], dict[str, Any]]:
    layerwise = bench.evaluator(SPACE.criteria, 0, Recipe(reconstruct=True, sequential=True))
    at_once = bench.evaluator(SPACE.criteria, 0, Recipe(reconstruct=True))
    projector = Projector(bench.graph, SPACE, Budget(macs=budget).limits(bench.graph.dense_costs), at_once.scores)
    teacher = Teacher(bench.model)
    known = [choose_widths(projector, criterion, widths) for criterion, widths in product(SPACE.criteria, WIDTHS)]

    def candidate(number: int) -> Candidate:
        if number < len(known):
            return known[number]
        rng = np.random.default_rng(derive_seed("rungs", number))
        return projector.candidate(
            {
                p.name: float(rng.uniform(p.low, p.high))
                if isinstance(p, FloatParameter)
                else str(rng.choice(p.choices))
                for p in projector.parameters
            }
        )

    def measure(number: int) -> dict[str, Any]:
        plan = at_once.plan(candidate(number))
        models = {AT_ONCE: at_once.compress(plan), LAYERWISE: layerwise.compress(plan)}
        scores, seconds = {}, {}
        for name, model in models.items():
            scores[name] = score(model, bench.task, "val", bench.device).value
        for steps in (*SHORT, LONG):
            start = time.process_time()
            recipe = FineTuning(steps, LONG_RATE if steps == LONG else RATE)
            small = copy.deepcopy(models[LAYERWISE])
            small = finetune(small, bench.task, recipe, seed=0, device=bench.device, teacher=teacher)
            seconds[f"{steps} steps"] = time.process_time() - start
            scores[f"{steps} steps"] = score(small, bench.task, "val", bench.device).value
        costs = {name: cost.ratio for name, cost in plan.costs().items()}
        return {"widths": dict(plan.widths), "costs": costs, "scores": scores, "seconds": seconds}

    return measure


def _table(rows: list[dict[str, Any]]) -> str:
    long = f"{LONG} steps"
    lines = ["# Rungs", "", f"What early scores say of the one after {long}. Written by `rungs.py`, which says how."]
    for model, budget in sorted({(row["model"], row["budget"]) for row in rows}):
        mine = [row for row in rows if (row["model"], row["budget"]) == (model, budget)]
        known = {name: np.array([row["scores"][name] for row in mine]) for name in mine[0]["scores"]}
        known["parameters kept"] = np.array([row["costs"]["params"] for row in mine])
        final = known.pop(long)
        span = f"{100 * final.min():.2f} to {100 * final.max():.2f} %, that of uniform widths {100 * final[0]:.2f} %"
        lines += ["", f"## {model}, {budget:.0%} of the MACs, {len(mine)} candidates", ""]
        lines += [f"Validation accuracy after {long}: {span}.", ""]
        lines += ["| known early | rank correlation (95 % interval) | its best in the end |", "|---|---|---|"]
        for name, values in known.items():
            rho, (low, high) = spearmanr(values, final).statistic, _interval(values, final)
            lines.append(f"| {name} | {rho:.2f} ({low:.2f} to {high:.2f}) | {100 * final[values.argmax()]:.2f} |")
    return "\n".join(lines) + "\n"


def _interval(values: Any, final: Any) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = rng.integers(len(final), size=(2000, len(final)))
    found = [spearmanr(values[d], final[d]).statistic for d in draws if len(set(d)) > 2]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    main()
