"""Other pruners beside ours: the same network, data, budgets, fine-tuning steps and seeds, in one run.

    pip install torch-pruning nvidia-modelopt torchprofile requests huggingface_hub    # an environment of its own
    OMP_NUM_THREADS=1 nice python experiments/benchmarks/peers.py --model fashion_mnist_resnet20

Torch-Pruning prunes in small steps until the budget is met, as its examples do: uniformly by L1, globally by group
norm, globally by Taylor expansion. FastNAS searches as its documentation shows, with channel counts fine enough for a
narrow network (its defaults cannot reach half the MACs) and a score on 1024 validation images. Both then fine-tune with
cross-entropy. Ours is `one_shot` (obs, layer by layer), then fine-tuning with distillation. Everyone trains with the
same optimiser and number of steps, at each of the ``--rates``; the rate is chosen by validation accuracy, and the
accuracy of all test images is shown. Seconds are processor seconds of pruning, search and training together, without
scoring. Finished runs are in ``results/peers.json`` and not repeated.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from typing import Any

import torch
from one_shot import HERE, Bench
from torch import nn

from automl_prune.budget import Budget
from automl_prune.compression import choose_widths
from automl_prune.costs import count_macs
from automl_prune.evaluation import FineTuning, Recipe, Teacher, finetune, score
from automl_prune.files import read_json, write_json, write_text
from automl_prune.projection import Projector
from automl_prune.seeding import seeded
from automl_prune.session import environment
from automl_prune.space import Space
from automl_prune.tasks.base import move
from automl_prune.tasks.bounded import BoundedValidation

RESULTS = HERE / "results" / "peers.json"
SEARCH_SAMPLES = 1024
"""Validation images for FastNAS's score."""


@dataclass(frozen=True)
class Method:
    """A pruner: from the bench and the share of the MACs to a pruned model; whether it distils when fine-tuning."""

    prune: Callable[[Bench, float], nn.Module]
    distils: bool


def ours(widths: str) -> Callable[[Bench, float], nn.Module]:
    def prune(bench: Bench, share: float) -> nn.Module:
        evaluator = bench.evaluator(["obs"], 0, Recipe(reconstruct=True, sequential=True))
        limits = Budget(macs=share).limits(bench.graph.dense_costs)
        projector = Projector(bench.graph, Space(criteria=("obs",)), limits, evaluator.scores)
        return evaluator.compress(evaluator.plan(choose_widths(projector, "obs", widths)))  # type: ignore[arg-type]

    return prune


def torch_pruning(importance: str, *, everywhere: bool) -> Callable[[Bench, float], nn.Module]:
    """Torch-Pruning in 200 small steps until the budget is met."""

    def prune(bench: Bench, share: float) -> nn.Module:
        import torch_pruning as tp

        model, example = copy.deepcopy(bench.model), bench.task.example_inputs
        scorer = tp.importance.MagnitudeImportance(p=1) if importance == "l1" else tp.importance.TaylorImportance()
        if importance == "group norm":
            scorer = tp.importance.MagnitudeImportance(p=2)
        pruner = tp.pruner.BasePruner(
            model, example[0], importance=scorer, global_pruning=everywhere, pruning_ratio=1.0, max_pruning_ratio=0.95,
            iterative_steps=200, ignored_layers=[m for m in model.modules() if isinstance(m, nn.Linear)],
        )  # fmt: skip
        batches = iter(bench.task.batches("train", shuffle=0))
        limit = share * count_macs(model, example)
        while count_macs(model, example) > limit:
            if importance == "taylor":
                batch = move(next(batches), bench.device)
                model.zero_grad()
                torch.autograd.backward(bench.task.loss(model(*bench.task.inputs(batch)), batch))
            pruner.step()
        model.zero_grad()
        return model

    return prune


def fastnas(bench: Bench, share: float) -> nn.Module:
    """NVIDIA ModelOpt's FastNAS, as its documentation shows."""
    import modelopt.torch.prune as mtp

    task = BoundedValidation(bench.task, SEARCH_SAMPLES)
    rules = {"nn.Conv2d": {"*": {"channel_divisor": 2}}, "nn.BatchNorm2d": {"*": {"feature_divisor": 2}}}
    found, _ = mtp.prune(
        copy.deepcopy(bench.model), mode=[("fastnas", rules)], constraints={"flops": f"{100 * share:g}%"},
        dummy_input=bench.task.example_inputs[0][:1],
        config={
            "data_loader": list(islice(bench.task.batches("train", shuffle=0), 8)),
            "collect_func": lambda batch: bench.task.inputs(batch)[0],
            "score_func": lambda model: score(model, task, "val", bench.device).value,
            "max_iter_data_loader": 8,
        },
    )  # fmt: skip
    return found


METHODS = {
    "ours: one_shot obs, uniform widths": Method(ours("uniform"), True),
    "ours: one_shot obs, global widths": Method(ours("global"), True),
    "Torch-Pruning: uniform L1": Method(torch_pruning("l1", everywhere=False), False),
    "Torch-Pruning: global group norm": Method(torch_pruning("group norm", everywhere=True), False),
    "Torch-Pruning: global Taylor": Method(torch_pruning("taylor", everywhere=True), False),
    "ModelOpt FastNAS": Method(fastnas, False),
}


def main() -> None:
    arguments = _arguments()
    document = read_json(RESULTS) if RESULTS.is_file() else {"runs": [], "environments": {}}
    bench = Bench(arguments.model)
    document["environments"].setdefault(arguments.model, {**environment(bench.device), **_peers()})
    for budget in arguments.budgets:
        for name in arguments.methods or METHODS:
            _measure(document, bench, arguments.model, name, budget, arguments.steps, arguments.rates)
    table = _table(document["runs"])
    write_text(RESULTS.with_suffix(".md"), table)
    print(table)


def _measure(
    document: dict[str, Any],
    bench: Bench,
    model: str,
    name: str,
    budget: float,
    all_steps: list[int],
    rates: list[float],
) -> None:
    """All runs of one method at one budget that are not there yet; it prunes once."""
    keys = [
        {"model": model, "method": name, "budget": budget, "steps": steps, "rate": rate}
        for steps in [0, *all_steps]
        for rate in (rates if steps else (None,))
    ]
    todo = [key for key in keys if not any(key.items() <= run.items() for run in document["runs"])]
    if not todo:
        return
    method, start = METHODS[name], time.process_time()
    with seeded("peers"):
        pruned = method.prune(bench, budget).eval()
    seconds = time.process_time() - start
    macs = count_macs(pruned, bench.task.example_inputs) / bench.graph.dense_costs["macs"]
    for key in todo:
        small, start = copy.deepcopy(pruned), time.process_time()
        if key["steps"]:
            recipe = FineTuning(key["steps"], key["rate"], distillation=0.9 if method.distils else 0.0)
            small = finetune(small, bench.task, recipe, seed=0, device=bench.device, teacher=Teacher(bench.model))
        trained = time.process_time() - start
        val, test = (score(small, bench.task, split, bench.device) for split in ("val", "test"))
        found = {"macs": macs, "val": val.value, "test": test.value, "samples": test.samples}
        document["runs"].append({**key, **found, "seconds": seconds + trained})
        write_json(RESULTS, document)
        print(document["runs"][-1], flush=True)


def _peers() -> dict[str, str]:
    found = {}
    for name in ("torch-pruning", "nvidia-modelopt"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _table(runs: list[dict[str, Any]]) -> str:
    lines = [
        "# Peers",
        "",
        "Test accuracy in % after so many steps of fine-tuning, at the rate that validation accuracy chooses; in",
        "brackets processor seconds of pruning, search and training. Written by `peers.py` from `peers.json`.",
    ]
    for model, budget in sorted({(r["model"], r["budget"]) for r in runs}, key=lambda key: (key[0], -key[1])):
        mine = [run for run in runs if (run["model"], run["budget"]) == (model, budget)]
        steps = sorted({run["steps"] for run in mine})
        lines += ["", f"## {model}, {budget:.0%} of the MACs", ""]
        lines += [f"| method | MACs | {' | '.join(f'{n} steps' for n in steps)} |", "|---|---|" + "---|" * len(steps)]
        for name in METHODS:
            best = [
                max((r for r in mine if (r["method"], r["steps"]) == (name, n)), key=lambda r: r["val"], default=None)
                for n in steps
            ]
            if any(best):
                shown = [f"{100 * b['test']:.2f} ({b['seconds']:.0f} s)" if b else "–" for b in best]
                macs = next(f"{b['macs']:.1%}" for b in best if b)
                lines.append(f"| {name} | {macs} | {' | '.join(shown)} |")
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fashion_mnist_resnet20", help="a folder of experiments/ with weights")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.25, 0.5], help="shares of the dense MACs")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 400, 1200], help="optimiser steps")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.03, 0.1], help="learning rates")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), help="only these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
