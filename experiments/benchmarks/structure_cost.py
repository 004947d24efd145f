"""Seconds to trace, prove and prune torchvision's ResNet-50 at 224 x 224 pixels; writes results/structure_cost.json.

    python experiments/benchmarks/structure_cost.py [--repeats 3] [--model resnet50]

Wall seconds are of this machine as busy as it is; processor seconds say what the work itself takes. The forward pass
of the dense model, measured in the same run, is the unit in which both can be carried to other machines.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torchvision

from automl_prune.channels import ChannelGraph, prove, prune
from automl_prune.channels.proof import random_part
from automl_prune.files import write_json
from automl_prune.seeding import seeded
from automl_prune.session import environment


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50", help="a torchvision model")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "structure_cost.json")
    arguments = parser.parse_args()
    with seeded("structure cost"):
        model = torchvision.models.get_model(arguments.model).eval()
        inputs = (torch.randn(2, 3, 224, 224),)
    graph = ChannelGraph.trace(model, inputs)
    plan = graph.plan(random_part(graph, graph.widths, 0))
    with torch.no_grad():
        steps: dict[str, Callable[[], Any]] = {
            "dense forward, 1 image": lambda: model(inputs[0][:1]),
            "trace": lambda: ChannelGraph.trace(model, inputs),
            "proof": lambda: prove(model, graph, inputs),
            "apply a whole candidate": lambda: prune(model, plan),
            "costs of a candidate": plan.costs,
        }
        seconds = {name: [_timed(step) for _ in range(arguments.repeats)] for name, step in steps.items()}
    print(f"{arguments.model}, {len(graph.groups)} groups, {torch.get_num_threads()} thread(s)")
    print("| step | wall s | processor s |\n|---|---|---|")
    for name, pairs in seconds.items():
        print(
            f"| {name} | {statistics.median(w for w, _ in pairs):.4f} | {statistics.median(c for _, c in pairs):.4f} |"
        )
    write_json(
        arguments.out,
        {"model": arguments.model, "groups": len(graph.groups), "seconds (wall, processor)": seconds}
        | {"environment": environment(torch.device("cpu"))},
    )


def _timed(step: Callable[[], Any]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main()
