"""At equal measured latency: a search under a latency budget, one under a MACs budget, and uniform widths.

    OMP_NUM_THREADS=1 python experiments/benchmarks/latency_search.py
    OMP_NUM_THREADS=1 python experiments/benchmarks/latency_search.py --speed torchvision_resnet18

Every method may propose many models of the trained network; of those whose *measured* latency keeps the bound (a share
of the dense model's in ONNX Runtime), the one with the best validation accuracy before training is fine-tuned, exported
and scored on all test images. The MACs search gets the benefit that its models are measured afterwards. The latencies
that the exported files' manifests state are then measured again by a process of its own. ``--speed`` is of random
weights: how fast models of the latency budget are for their MACs, beside uniform widths of equal MACs, rounded or not.
Writes ``results/latency_search.json`` and its table after every model; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from one_shot import HERE, Bench
from predictor import MODELS

import automl_prune as ap
from automl_prune.budget import Budget
from automl_prune.candidate import Candidate, GroupChoice
from automl_prune.channels import ChannelGraph
from automl_prune.costs.latency import LatencySettings
from automl_prune.evaluation import FineTuning, Teacher, finetune, score
from automl_prune.export.bundle import export_model
from automl_prune.files import read_json, write_json, write_text
from automl_prune.latency import predictor_of
from automl_prune.meter import LatencyMeter
from automl_prune.pricing import measuring
from automl_prune.projection import Projector
from automl_prune.projection.rounding import choose_rounding
from automl_prune.report.table import completed
from automl_prune.sections import EvaluationSection
from automl_prune.seeding import seeded
from automl_prune.session import Session, environment
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks.bounded import BoundedValidation
from automl_prune.view import Silent

RESULTS = HERE / "results" / "latency_search.json"
RUNS = Path("runs") / "benchmarks" / "latency_search"
SHARES = (0.6, 0.4)
TRIALS, SAMPLES = 40, 2000
STEPS, RATE, SEEDS = 400, 0.03, 2
SCALES = 40
"""How many sizes of uniform widths are tried."""
LATENCY, MACS = "search under latency", "search under MACs, measured afterwards"
UNIFORM = {"uniform": 1, "uniform, multiples of 8": 8, "uniform, multiples of 16": 16}
EVALUATION = EvaluationSection(finetune_steps=0, finalists=0)

Found = tuple[Candidate, float, str]
"""A candidate, its validation accuracy before training, and where it comes from."""


class Comparison:
    """The trained network under one latency bound."""

    def __init__(self, name: str, share: float) -> None:
        self.bench, self.name, self.share = Bench(name), name, share
        self.task = BoundedValidation(self.bench.task, SAMPLES)
        self.directory = RunDirectory(RUNS / name / f"latency-{share:g}")

    @cached_property
    def session(self) -> Session:
        return Session.prepare(
            self.bench.model, self.task, Budget(latency=self.share), self._space(0.7), EVALUATION.recipe(), seed=0,
            device=self.bench.device, view=Silent(), calibration=self.directory.calibration,
            ranking=self.directory.scores, latency=self.directory.latency,
        )  # fmt: skip

    @cached_property
    def teacher(self) -> Teacher:
        return Teacher(self.bench.model)

    def latency(self, widths: dict[str, int]) -> float:
        return self.session.prices.meter.cost(widths).value / self.session.prices.dense["latency"]

    def found(self, method: str) -> Iterator[Found]:
        """Every candidate of a method."""
        if method in UNIFORM:
            yield from self._uniform(UNIFORM[method])
            return
        under, least = ("latency", 0.7) if method == LATENCY else ("macs", 0.35)
        result = ap.search(
            model=self.bench.model, task=self.task, budget=Budget(**{under: self.share}), n_trials=TRIALS,
            run_dir=RUNS / self.name / f"{under}-{self.share:g}", space=self._space(least), evaluation=EVALUATION,
        )  # fmt: skip
        for trial, evaluation in completed(result.record):
            yield evaluation.candidate, evaluation.score.value, trial.origin

    def chosen(self, method: str) -> tuple[Found, float] | None:
        """The best candidate on validation data that keeps the bound, and its measured latency; None if none does."""
        ranked = sorted(self.found(method), key=lambda found: -found[1])
        for found in ranked:
            latency = self.latency(found[0].widths)
            if latency <= self.share:
                return found, latency
        return None

    def measure(self, method: str) -> dict[str, Any]:
        chosen = self.chosen(method)
        if chosen is None:
            return {"origin": "no model keeps the bound"}
        (candidate, before, origin), latency = chosen
        evaluator, device = self.session.evaluator, self.bench.device
        plan, tests = evaluator.plan(candidate), []
        start = evaluator.compress(plan)
        untrained = score(start, self.bench.task, "test", device).value
        for seed in range(SEEDS):
            small = finetune(
                evaluator.compress(plan), self.bench.task, FineTuning(STEPS, RATE), seed=seed, device=device,
                teacher=self.teacher,
            )  # fmt: skip
            tests.append(score(small, self.bench.task, "test", device).value)
        model = self.directory.models / method.replace(",", "").replace(" ", "-")
        manifest = export_model(
            small, plan, self.bench.task, model, dense=self.bench.model, measure=self.session.measure_export
        )
        return {
            "origin": origin, "latency": latency, "macs": plan.costs()["macs"].ratio, "val before": before,
            "test before": untrained, "tests": tests, "widths": dict(plan.widths), "manifest": manifest["latency"],
            "again": _again(model / "model.onnx", self.name, manifest["latency"]),
        }  # fmt: skip

    def _space(self, least: float) -> Space:
        return Space(criteria=("obs",), target_cost=least, round_to="auto" if least == 0.7 else 1)

    def _uniform(self, step: int) -> Iterator[Found]:
        evaluator, seen = self.session.evaluator, set()
        for scale in np.linspace(0.15, 1, SCALES):
            widths = {
                name: min(width, max(step, round(scale * width / step) * step))
                for name, width in self.session.graph.widths.items()
            }
            if tuple(widths.values()) in seen or self.latency(widths) > self.share:
                continue
            seen.add(tuple(widths.values()))
            candidate = Candidate({name: GroupChoice(width, "obs") for name, width in widths.items()})
            val = score(evaluator.compress(evaluator.plan(candidate)), self.task, "val", self.bench.device).value
            yield candidate, val, "uniform"


def _again(file: Path, name: str, stated: dict[str, Any]) -> dict[str, Any]:
    """The file's latency measured by another process, and whether it lies within the stated interval."""
    command = [sys.executable, __file__, "--model", name, "--again", str(file)]
    ratio = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    low, high = stated["interval"]
    return {"ratio": ratio, "within": low <= ratio <= high}


def _ratio(file: Path, name: str) -> float:
    bench = Bench(name)
    example = tuple(tensor[:1] for tensor in bench.task.example_inputs)
    meter = LatencyMeter(bench.model, bench.graph, example, LatencySettings())
    return meter.measure_model(file.read_bytes()).ratio


def speed(name: str) -> list[dict[str, Any]]:
    """Latency and MACs of models of random weights, by bound and kind of widths."""
    factory, shape = MODELS[name]
    with seeded("latency search", name):
        model, inputs = factory().eval(), (torch.randn(1, *shape),)
    graph = ChannelGraph.trace(model, inputs)
    make = measuring(LatencySettings())
    lowest = [max(1, width // 10) for width in graph.widths.values()]
    meter, predictor = predictor_of(
        lambda reference: make(model, graph, inputs, reference), graph, lowest, model=name,
        path=RUNS / name / "latency.json", seed=0, view=Silent(),
    )  # fmt: skip
    every = {group: tuple(range(1, width + 1)) for group, width in graph.widths.items()}
    rounding = choose_rounding(predictor, graph.macs, every)
    scores = {"l1": {group: torch.ones(width) for group, width in graph.widths.items()}}
    dense, rows = graph.dense_costs["macs"], []

    def row(share: float, kind: str, candidate: Candidate, metric: str) -> None:
        cost, plan = meter.cost(candidate.widths), graph.plan({g: range(w) for g, w in candidate.widths.items()})
        rows.append(
            {
                "share": share, "budget": metric, "widths": kind, "macs": plan.costs()["macs"].value / dense,
                "predicted": predictor.at(candidate.widths) / predictor.dense, "latency": cost.value / predictor.dense,
            }
        )  # fmt: skip
        print(name, rows[-1], flush=True)

    for share in SHARES:
        limit = {"latency": share * predictor.dense / (1 + predictor.error.mape)}
        under_latency = Projector(
            graph, Space(criteria=("l1",)), limit, scores, {"latency": predictor}, rounding.allowed
        )
        found = under_latency.uniform("l1")
        row(share, "chosen under latency", found, "latency")
        macs = rows[-1]["macs"]
        for step in (1, 8):
            under_macs = Projector(graph, Space(criteria=("l1",), round_to=step), {"macs": macs * dense}, scores)
            row(share, f"uniform, multiples of {step}", under_macs.uniform("l1"), f"{macs:.1%} of the MACs")
    return rows


def main() -> None:
    arguments = _arguments()
    if arguments.again:
        print(_ratio(arguments.again, arguments.model))
        return
    document = read_json(RESULTS) if RESULTS.is_file() else {"accuracy": [], "speed": {}, "environments": {}}
    load = os.getloadavg()[0]
    document["environments"].setdefault(
        arguments.speed or arguments.model, {**environment(torch.device("cpu")), "load average at the start": load}
    )
    if arguments.speed:
        document["speed"][arguments.speed] = speed(arguments.speed)
    else:
        for share in SHARES:
            comparison = Comparison(arguments.model, share)
            for method in (LATENCY, MACS, *UNIFORM):
                key = {"model": arguments.model, "share": share, "method": method}
                if not any(key.items() <= row.items() for row in document["accuracy"]):
                    document["accuracy"].append({**key, **comparison.measure(method)})
                    print(json.dumps(document["accuracy"][-1]), flush=True)
                    write_json(RESULTS, document)
    write_json(RESULTS, document)
    table = _table(document)
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _table(document: dict[str, Any]) -> str:
    lines = ["# Searching under latency", "", "Written by `latency_search.py`, which says how, from its JSON."]
    for model, share in sorted({(r["model"], r["share"]) for r in document["accuracy"]}, key=lambda k: (k[0], -k[1])):
        mine = [row for row in document["accuracy"] if (row["model"], row["share"]) == (model, share)]
        lines += ["", f"## {model}, at most {share:.0%} of the dense model's latency", ""]
        lines += [f"| method | latency | MACs | test accuracy, untrained | after {STEPS} steps (each seed) | again |"]
        lines += ["|---|---|---|---|---|---|"]
        for row in mine:
            if "tests" not in row:
                lines.append(f"| {row['method']} ({row['origin']}) | – | – | – | – | – |")
                continue
            tests = f"{100 * statistics.mean(row['tests']):.2f} ({', '.join(f'{100 * t:.2f}' for t in row['tests'])})"
            lines.append(
                f"| {row['method']} ({row['origin']}) | {row['latency']:.1%} | {row['macs']:.1%} "
                f"| {100 * row['test before']:.2f} | {tests} "
                f"| {row['again']['ratio']:.1%}, {'within' if row['again']['within'] else 'outside'} |"
            )
    for model, rows in document["speed"].items():
        lines += ["", f"## {model}, speed only", ""]
        lines += ["| bound | widths | MACs | predicted | measured latency | efficiency |", "|---|---|---|---|---|---|"]
        for row in rows:
            ratios = " | ".join(f"{row[name]:.1%}" for name in ("macs", "predicted", "latency"))
            efficiency = row["macs"] / row["latency"]
            lines.append(f"| {row['share']:.0%} | {row['widths']} ({row['budget']}) | {ratios} | {efficiency:.2f} |")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--speed", choices=sorted(MODELS), help="only the speed of this one, with random weights")
    parser.add_argument("--again", type=Path, help=argparse.SUPPRESS)  # the separate process: measure this file
    return parser.parse_args()


if __name__ == "__main__":
    main()
