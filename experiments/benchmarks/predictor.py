"""Error of the latency predictor on candidates it has not seen; writes results/predictor.json and results/predictor.md.

    python experiments/benchmarks/predictor.py [--models resnet20 resnet18] [--held-out 20]

For every model 48 candidates are measured to fit the predictor, as a search does, and then others, drawn with another
seed. Weights do not matter to speed and are random. Beside the error stands that of multiply-accumulates, scaled to the
dense model's latency: what one would predict without measuring. Results of models that are not run again are kept.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.costs.latency import LatencySettings
from automl_prune.costs.predictor import PredictionError
from automl_prune.costs.sampling import diverse_widths
from automl_prune.files import read_json, write_json, write_text
from automl_prune.latency import predictor_of
from automl_prune.models import mobilenet_v2, resnet20, resnet56
from automl_prune.pricing import measuring
from automl_prune.projection.rounding import choose_rounding
from automl_prune.seeding import seeded
from automl_prune.session import environment
from automl_prune.view import Silent

MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet20": (lambda: resnet20(in_channels=1), (1, 28, 28)),
    "resnet56": (lambda: resnet56(in_channels=1), (1, 28, 28)),
    "mobilenet_v2": (lambda: mobilenet_v2(in_channels=1), (1, 28, 28)),
    "torchvision_resnet18": (torchvision.models.resnet18, (3, 224, 224)),
    "torchvision_mobilenet_v2": (torchvision.models.mobilenet_v2, (3, 224, 224)),
}
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Measure, write after every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--held-out", type=int, default=20)
    arguments = parser.parse_args()
    path = RESULTS / "predictor.json"
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    for name in arguments.models:
        found[name] = measure(name, arguments.held_out)
        write_json(path, found)
        write_text(path.with_suffix(".md"), as_table(found))
        print(name, {key: value for key, value in found[name].items() if key != "environment"})


def measure(name: str, held_out: int) -> dict[str, Any]:
    """One model's row."""
    factory, shape = MODELS[name]
    with seeded("predictor benchmark", name):
        model, inputs = factory().eval(), (torch.randn(1, *shape),)
    graph = ChannelGraph.trace(model, inputs)
    make = measuring(LatencySettings(time_limit=4.0))
    lowest = [max(1, width // 10) for width in graph.widths.values()]
    start = time.perf_counter()
    meter, predictor = predictor_of(
        lambda reference: make(model, graph, inputs, reference),
        graph, lowest, model=name, path=None, seed=0, view=Silent(),
    )  # fmt: skip
    fitted = time.perf_counter() - start
    widths = diverse_widths(lowest, list(graph.widths.values()), held_out + 1, seed=1)[1:]
    start = time.perf_counter()
    costs = [meter.cost(dict(zip(graph.widths, row, strict=True))) for row in widths]
    measured = time.perf_counter() - start
    start = time.perf_counter()
    predicted = predictor.evaluate_all(np.array(widths))
    predicting = time.perf_counter() - start
    macs = graph.macs.evaluate_all(np.array(widths)) / graph.dense_costs["macs"] * predictor.dense
    allowed = {group: tuple(range(1, width + 1)) for group, width in graph.widths.items()}
    return {
        "groups": len(graph.groups),
        "dense seconds": predictor.dense,
        "predictor": asdict(PredictionError.of(predicted, [cost.value for cost in costs])),
        "macs": asdict(PredictionError.of(macs, [cost.value for cost in costs])),
        "seconds to measure and fit": fitted,
        "seconds per measurement": measured / len(costs),
        "seconds per prediction": predicting / len(costs),
        "rounding": choose_rounding(predictor, graph.macs, allowed).reason,
        "fingerprint": meter.fingerprint.to_json(),
        "environment": environment(torch.device("cpu")),
    }


def as_table(found: dict[str, Any]) -> str:
    """The rows in Markdown."""
    heads = (
        "model", "dense", "mean error", "rank correlation", "by MACs alone", "candidates", "to measure and fit",
        "per measurement", "per prediction", "widths",
    )  # fmt: skip
    lines = [
        "# Latency predictor",
        "",
        "Candidates that the fit has not seen (`experiments/benchmarks/predictor.py` says how): the error of the",
        "predictor, and of multiply-accumulates alone.",
        "",
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
    ]
    for name, row in found.items():
        ours, macs = row["predictor"], row["macs"]
        lines.append(
            f"| {name} | {1e3 * row['dense seconds']:.3g} ms | {ours['mape']:.1%} | {ours['spearman']:.3f} "
            f"| {macs['mape']:.1%}, {macs['spearman']:.3f} | {ours['samples']} "
            f"| {row['seconds to measure and fit']:.0f} s | {row['seconds per measurement']:.1f} s "
            f"| {1e6 * row['seconds per prediction']:.0f} µs | {row['rounding']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
