"""Measured latency: the staircase of widths, what a measurement takes, and whether another process finds the same.

    python experiments/benchmarks/latency.py [--candidates 10]

Writes results/latency.json and latency.md. Every ratio is to the dense model, timed in turns with it in ONNX Runtime on
one thread, batch 1. The last table measures the same candidates of ResNet-20 again in processes of their own: how many
second ratios lie within the first one's interval, and how far they are apart. Load is what else ran meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.costs.latency import LatencyMeasurement, LatencySettings
from automl_prune.files import write_json, write_text
from automl_prune.meter import LatencyMeter
from automl_prune.models import resnet20
from automl_prune.seeding import seeded
from automl_prune.session import environment

RESULTS = Path(__file__).parent / "results"
SCALES = (0.9, 0.75, 0.7, 0.6, 0.5, 0.4)
ROUNDINGS = (1, 8, 16)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=10)
    parser.add_argument("--again", help=argparse.SUPPRESS)  # widths as JSON: the separate process
    arguments = parser.parse_args()
    if arguments.again:
        print(json.dumps([_row(found) for found in _measure_all(json.loads(arguments.again))]))
        return
    load_before = os.getloadavg()
    small, setup = _meter("resnet20")
    content: dict[str, Any] = {
        "settings": asdict(small.settings),
        "fingerprint": small.fingerprint.to_json(),
        "staircase": [_step(small, scale, rounding) for rounding in ROUNDINGS for scale in SCALES],
        "effort": [_effort(name, arguments.candidates) for name in ("resnet20", "resnet18")],
        "setup": {"resnet20": setup},
        "repeated": _repeated(small, arguments.candidates),
        "load averages": [load_before, os.getloadavg()],
        "environment": environment(torch.device("cpu")),
    }
    write_json(RESULTS / "latency.json", content)
    write_text(RESULTS / "latency.md", _report(content))
    print(_report(content))


def _meter(name: str) -> tuple[LatencyMeter, float]:
    """A meter, and the processor seconds until it could measure candidates: two exports and the dense model's runs."""
    with seeded("latency", name):
        model: nn.Module = resnet20(10, 1) if name == "resnet20" else torchvision.models.resnet18()
        inputs = (torch.randn(2, 1, 28, 28) if name == "resnet20" else torch.randn(2, 3, 224, 224),)
    graph = ChannelGraph.trace(model.eval(), inputs)
    start = time.process_time()
    meter = LatencyMeter(model, graph, inputs, LatencySettings())
    meter.dense()
    if meter.exported is not None:
        raise RuntimeError(f"{name} cannot be cut: {meter.exported}")
    return meter, time.process_time() - start


def _step(meter: LatencyMeter, scale: float, rounding: int) -> dict[str, Any]:
    widths = {
        name: min(width, max(rounding, round(width * scale / rounding) * rounding))
        for name, width in meter.graph.widths.items()
    }
    row = _row(meter.measure(widths))
    return {"scale": scale, "rounded to": rounding, "macs": meter.graph.macs.at(widths) / _dense_macs(meter), **row}


def _dense_macs(meter: LatencyMeter) -> float:
    return meter.graph.dense_costs["macs"]


def _row(found: LatencyMeasurement) -> dict[str, Any]:
    return {"ratio": found.ratio, "interval": found.interval, "rounds": len(found.samples), "noisy": found.noisy}


def _random_widths(widths: Mapping[str, int], count: int) -> list[dict[str, int]]:
    """Arbitrary candidates: every group keeps its own share around a common one."""
    random, found = np.random.default_rng(0), []
    for _ in range(count):
        common = random.uniform(0.3, 1.0)
        shares = np.clip(common + random.uniform(-0.2, 0.2, len(widths)), 0.05, 1.0)
        found.append({name: max(1, int(width * s)) for (name, width), s in zip(widths.items(), shares, strict=True)})
    return found


def _effort(name: str, count: int) -> dict[str, Any]:
    """Seconds of one candidate's measurement, cutting and loading included."""
    meter, setup = _meter(name)
    wall, processor, rounds = [], [], []
    for widths in _random_widths(meter.graph.widths, count):
        before = time.perf_counter(), time.process_time()
        rounds.append(len(meter.measure(widths).samples))
        wall.append(time.perf_counter() - before[0])
        processor.append(time.process_time() - before[1])
    return {
        "model": name,
        "dense ms": meter.reference * 1e3,
        "setup processor s": setup,
        "processor s": processor,
        "wall s": wall,
        "rounds": rounds,
    }


def _measure_all(widths: list[dict[str, int]]) -> list[LatencyMeasurement]:
    meter, _ = _meter("resnet20")
    return [meter.measure(chosen) for chosen in widths]


def _repeated(meter: LatencyMeter, count: int) -> list[dict[str, Any]]:
    widths = _random_widths(meter.graph.widths, count)
    rows = [_row(meter.measure(chosen)) for chosen in widths]
    command = [sys.executable, __file__, "--again", json.dumps(widths)]
    again = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    return [
        {**row, "again": other["ratio"], "within": row["interval"][0] <= other["ratio"] <= row["interval"][1]}
        for row, other in zip(rows, again, strict=True)
    ]


def _report(content: Mapping[str, Any]) -> str:
    place, loads = content["fingerprint"], content["load averages"]
    lines = [
        "# Latency, measured",
        "",
        f"{place['runtime']}, {place['provider']}, {place['device']}, {place['threads']} thread, batch "
        f"{place['batch_size']}, {place['clock']}; load average {loads[0][0]:.1f} before and {loads[1][0]:.1f} after, "
        f"on {place['cores']} cores.",
        "",
        "## ResNet-20, 28 x 28: every width times k, ratio to dense (95 % interval of a repetition)",
        "",
        "| k | rounded to | MACs | latency |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {row['scale']} | {row['rounded to']} | {row['macs']:.2f} | {_shown(row)} |" for row in content["staircase"]
    ]
    lines += [
        "",
        "## One candidate's measurement, arbitrary widths (median and largest)",
        "",
        "| model | dense ms | once, processor s | processor s | wall s | rounds |",
        "|---|---|---|---|---|---|",
    ]
    for row in content["effort"]:
        spans = [f"{np.median(row[k]):.2f}, {max(row[k]):.2f}" for k in ("processor s", "wall s")]
        lines.append(
            f"| {row['model']} | {row['dense ms']:.3f} | {row['setup processor s']:.1f} | {spans[0]} | {spans[1]} "
            f"| {np.median(row['rounds']):.0f} |"
        )
    rows = content["repeated"]
    apart = [abs(row["again"] / row["ratio"] - 1) for row in rows]
    lines += [
        "",
        "## ResNet-20's candidates measured again by another process",
        "",
        f"{sum(row['within'] for row in rows)} of {len(rows)} second ratios lie within the first interval; they differ "
        f"by {np.median(apart):.2%} (median), {max(apart):.2%} at most.",
        "",
        "| ratio (interval) | again | within |",
        "|---|---|---|",
    ]
    lines += [f"| {_shown(row)} | {row['again']:.4f} | {'yes' if row['within'] else 'no'} |" for row in rows]
    return "\n".join(lines) + "\n"


def _shown(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['ratio']:.4f} ({low:.4f} to {high:.4f}){' noisy' if row['noisy'] else ''}"


if __name__ == "__main__":
    main()
