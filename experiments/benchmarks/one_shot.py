"""What is left of a model's accuracy right after pruning, without training: criterion by criterion, repair by repair.

    OMP_NUM_THREADS=1 nice python experiments/benchmarks/one_shot.py --model fashion_mnist_resnet20
    OMP_NUM_THREADS=1 nice python experiments/benchmarks/one_shot.py --model fashion_mnist_resnet56
    python experiments/benchmarks/one_shot.py --table

Accuracy is that of all test images, on which nothing was chosen. The seed chooses the calibration samples; cells that
depend on none are measured once. Every cell is written to ``results/one_shot.json`` as it is finished, and what is
there is not measured again: the script may be stopped and goes on. The table is computed from the file.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_prune.budget import Budget
from automl_prune.calibration import Calibration
from automl_prune.checkpoints import load_weights
from automl_prune.compression import choose_widths
from automl_prune.config import Config
from automl_prune.criteria import CriterionContext, criteria, need_of
from automl_prune.evaluation import Evaluator, Recipe, score
from automl_prune.files import read_json, write_json, write_text
from automl_prune.projection import Projector
from automl_prune.seeding import seeded
from automl_prune.session import calibrate, choose_device, environment, rank, trace_and_prove
from automl_prune.space import Space
from automl_prune.view import Silent

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "one_shot.json"
RECIPES = {
    "plain": Recipe(recalibrate=False),
    "BN": Recipe(),
    "reconstruction": Recipe(reconstruct=True, recalibrate=False),
    "both": Recipe(reconstruct=True),
    "both, layer by layer": Recipe(reconstruct=True, sequential=True),
}
SEQUENTIAL = ("l1", "obs")
"""Criteria that are measured with the sequential variant too."""


@dataclass(frozen=True)
class Cell:
    """One measurement: what is varied."""

    model: str
    criterion: str
    widths: str
    budget: float
    variant: str
    seed: int

    @property
    def key(self) -> tuple[Any, ...]:
        return (self.model, self.criterion, self.widths, self.budget, self.variant, self.seed)


def main() -> None:
    arguments = _arguments()
    if not arguments.table:
        _measure(arguments.model, arguments.budgets, arguments.seeds)
    document = read_json(RESULTS)
    table = _table(document)
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _cells(model: str, budgets: list[float], seeds: int) -> Iterator[Cell]:
    for budget in budgets:
        for criterion in sorted(criteria):
            fixed = need_of(criteria[criterion]) == "weights" and criterion != "random"
            for variant, recipe in RECIPES.items():
                if recipe.sequential and criterion not in SEQUENTIAL:
                    continue
                once = fixed and not recipe.reconstruct
                for seed in range(1 if once else seeds):
                    yield Cell(model, criterion, "uniform", budget, variant, seed)
                    if criterion == "obs" and recipe.reconstruct and recipe.recalibrate:
                        yield Cell(model, criterion, "global", budget, variant, seed)


def _measure(model: str, budgets: list[float], seeds: int) -> None:
    bench = Bench(model)
    document = read_json(RESULTS) if RESULTS.is_file() else {"cells": [], "models": {}}
    known = {tuple(cell[name] for name in Cell.__dataclass_fields__) for cell in document["cells"]}
    todo = [cell for cell in _cells(model, budgets, seeds) if cell.key not in known]
    todo.sort(key=lambda cell: (cell.seed, cell.criterion != "obs", cell.criterion != "l1"))
    if todo and model not in document["models"]:
        document["models"][model] = {"dense": bench.dense(), "environment": environment(bench.device)}
    for number, cell in enumerate(todo, 1):
        measured = bench.measure(cell)
        document["cells"].append({**vars(cell), **measured})
        write_json(RESULTS, document)
        print(f"{number}/{len(todo)} {cell.key[1:]}: {measured['accuracy']:.4f}", flush=True)


class Bench:
    """One experiment's dense model with its graph; calibrations and scores are kept under ``runs/``."""

    def __init__(self, model: str) -> None:
        config = Config.load(HERE.parent / model / "config.yaml")
        self.task, self.device = config.build_task(), choose_device("auto")
        self.model = config.build_model().to(self.device).eval()
        assert config.model.weights is not None
        load_weights(self.model, Path(config.model.weights))
        self.graph = trace_and_prove(self.model, self.task, self.device, Silent())
        self.folder = Path("runs") / "benchmarks" / model
        self._calibrations: dict[int, Calibration | None] = {}

    def dense(self) -> float:
        """Test accuracy of the dense model."""
        return score(self.model, self.task, "test", self.device).value

    def evaluator(self, scored: Sequence[str], seed: int, recipe: Recipe) -> Evaluator:
        """Scores of some criteria and what repairs the model, by calibration samples of a seed."""
        folder = self.folder / str(seed)
        if seed not in self._calibrations:
            self._calibrations = {
                seed: calibrate(
                    self.model, self.graph, self.task, Recipe(reconstruct=True), tuple(sorted(criteria)),
                    folder / "calibration.safetensors", seed=seed, device=self.device, view=Silent(),
                )  # one at a time: they are large
            }  # fmt: skip
        calibration = self._calibrations[seed]
        context = CriterionContext.of(self.model, seed, calibration)
        scores = rank(self.graph, context, tuple(scored), folder / "scores.safetensors", Silent())
        return Evaluator(self.model, self.graph, self.task, scores, recipe, self.device, calibration)

    def measure(self, cell: Cell) -> dict[str, Any]:
        """Test accuracy of the pruned model, its share of the MACs, and the processor seconds of pruning and repair."""
        evaluator = self.evaluator([cell.criterion], cell.seed, RECIPES[cell.variant])
        limits = Budget(macs=cell.budget).limits(self.graph.dense_costs)
        projector = Projector(self.graph, Space(criteria=(cell.criterion,)), limits, evaluator.scores)
        with seeded("benchmark"):
            start = time.process_time()
            plan = evaluator.plan(choose_widths(projector, cell.criterion, cell.widths))  # type: ignore[arg-type]
            small = evaluator.compress(plan)
            seconds = time.process_time() - start
        result = score(small, self.task, "test", self.device)
        macs = plan.costs()["macs"].ratio
        return {"accuracy": result.value, "samples": result.samples, "macs": macs, "seconds": seconds}


def _table(document: dict[str, Any]) -> str:
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for cell in document["cells"]:
        cells[cell["model"], cell["budget"], cell["criterion"], cell["widths"], cell["variant"]].append(cell)
    lines = [
        "# Accuracy without training",
        "",
        "Test accuracy in % right after pruning (10000 images); mean and range over calibration seeds where there are",
        "several. Written by `one_shot.py` from `one_shot.json`; `s` is the median of processor seconds from scores",
        "to the repaired model with `both`, in one thread.",
    ]
    for model, budget in sorted({key[:2] for key in cells}, key=lambda key: (key[0], -key[1])):
        dense = 100 * document["models"][model]["dense"]
        lines += ["", f"## {model}, {budget:.0%} of the MACs (dense {dense:.2f})", ""]
        lines += [f"| criterion | {' | '.join(RECIPES)} | s |", "|---|" + "---|" * (len(RECIPES) + 1)]
        rows = sorted({key[2:4] for key in cells if key[:2] == (model, budget)})
        best = {row: _mean(cells.get((model, budget, *row, "both"), [])) for row in rows}
        for row in sorted(rows, key=lambda row: -best[row]):
            name = row[0] if row[1] == "uniform" else f"{row[0]}, {row[1]} widths"
            shown = [_shown(cells.get((model, budget, *row, variant), [])) for variant in RECIPES]
            seconds = [cell["seconds"] for cell in cells.get((model, budget, *row, "both"), [])]
            lines.append(
                f"| {name} | {' | '.join(shown)} | {f'{statistics.median(seconds):.1f}' if seconds else '–'} |"
            )
    return "\n".join(lines) + "\n"


def _mean(cells: list[dict[str, Any]]) -> float:
    return statistics.mean(100 * cell["accuracy"] for cell in cells) if cells else 0.0


def _shown(cells: list[dict[str, Any]]) -> str:
    values = [100 * cell["accuracy"] for cell in cells]
    if len(values) < 2:
        return f"{values[0]:.2f}" if values else "–"
    return f"{statistics.mean(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25], help="shares of the dense MACs")
    parser.add_argument("--seeds", type=int, default=3, help="how many calibration seeds")
    parser.add_argument("--table", action="store_true", help="only write the table from what is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
