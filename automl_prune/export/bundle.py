"""One exported model: ONNX, weights, plan, and a manifest of what was verified; complete or absent."""

from __future__ import annotations

import copy
import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from automl_prune.channels import Plan
from automl_prune.costs import contradiction, cost_metrics, count_costs
from automl_prune.costs.latency import LatencyMeasurement
from automl_prune.errors import ExportError
from automl_prune.evaluation import score
from automl_prune.export.checkpoint import PLAN, WEIGHTS, load_pruned, save_pruned
from automl_prune.export.onnx import TOLERANCE, OnnxModel, export_onnx, score_onnx
from automl_prune.files import published, read_json, sha256, tensors_digest, write_json
from automl_prune.tasks.base import Metric, Score, Task

ONNX = "model.onnx"
MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the manifest's layout."""

Measure = Callable[[bytes, nn.Module], LatencyMeasurement]
"""Measures a model, given as an ONNX file and as the same in torch."""

_VERSIONS = ("automl-prune", "torch", "torchvision", "onnx", "onnxruntime", "onnxscript", "numpy", "safetensors")


def export_model(
    model: nn.Module,
    plan: Plan,
    task: Task,
    directory: Path,
    *,
    dense: nn.Module,
    info: Mapping[str, Any] | None = None,
    measure: Measure | None = None,
) -> dict[str, Any]:
    """Write a pruned model's files, verify them, and only then let the directory have its name.

    Verified are: parameters and multiply-accumulates, counted, against the plan; ONNX Runtime against torch at
    several batch sizes; the weights after reload, bit for bit; and the score on all test samples of the model in
    memory, of the reloaded one and of the ONNX file, which must agree (see ``score_tolerance``).

    Args:
        model: The pruned model, trained; scored on the device it is on; not changed.
        plan: What made it from the dense model.
        task: Gives samples and score.
        directory: Replaced, when it exists, once the new one is complete.
        dense: The dense architecture, best fresh from the factory, to reload the files into; its weights do not
            matter; not changed.
        info: More JSON-ready entries for the manifest (trial, seeds, validation score); they may not hide its own.
        measure: Measures the latency of the very file that is written; None leaves it out of the manifest.

    Returns:
        The manifest, as written to ``manifest.json``.

    Raises:
        ExportError: A check failed; nothing is left but what was there before.
        CheckpointError: ``dense`` is not the plan's dense model.
    """
    device = next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
    model = copy.deepcopy(model).eval()
    samples = onnx_samples(task)
    costs = _costs(model, plan, tuple(tensor[:1].to(device) for tensor in samples))
    with published(directory) as work:
        save_pruned(work, model, plan)
        exported = export_onnx(model, samples, work / ONNX, metadata=onnx_metadata(task))
        reloaded = load_pruned(work, dense).to(device)
        if tensors_digest(reloaded.state_dict()) != tensors_digest(model.state_dict()):
            raise ExportError("the reloaded weights are not those saved; check the disk, then export again")
        with torch.no_grad():
            _, structure = tree_flatten(model(*(tensor.to(device) for tensor in samples)))
        scores = {
            "torch": score(model, task, "test", device),
            "reloaded": score(reloaded, task, "test", device),
            "onnxruntime": score_onnx(work / ONNX, task, "test", structure=structure),
        }
        _check_scores(scores, task.metric)
        costs["macs"]["counted_in_onnx"] = exported.macs
        if "size" in costs:
            costs["size"]["counted"] = _checked_size(work / ONNX, costs["size"]["value"])
        files = (ONNX, WEIGHTS, PLAN)
        manifest = _manifest(task, exported, costs, scores)
        manifest["sha256"] = {name: sha256(work / name) for name in files}
        manifest["bytes"] = {name: (work / name).stat().st_size for name in files}
        if measure is not None:
            manifest["latency"] = measure((work / ONNX).read_bytes(), model).summary()
        hidden = sorted(manifest.keys() & (info or {}).keys())
        if hidden:
            raise ExportError(f"info would hide the manifest's own {', '.join(hidden)}; name the entries differently")
        manifest |= dict(info or {})
        write_json(work / MANIFEST, manifest)
    return dict(read_json(directory / MANIFEST))


def score_tolerance(metric: Metric, samples: int, value: float) -> float:
    """How far the scores of two runtimes may lie apart when their outputs agree to ``onnx.TOLERANCE``.

    A metric in per cent counts samples, and a sample on the border between two classes can fall to either side:
    one sample, or one in ten thousand, may. Another metric follows the outputs: a relative ``onnx.TOLERANCE``.
    """
    return max(1 / samples, 1e-4) if metric.percent else TOLERANCE * abs(value)


def _check_scores(scores: Mapping[str, Score], metric: Metric) -> None:
    reference = scores["torch"]
    allowed = score_tolerance(metric, reference.samples, reference.value)
    for name, other in scores.items():
        difference = abs(other.value - reference.value)
        if not math.isfinite(reference.value) or other.samples != reference.samples or not difference <= allowed:
            raise ExportError(
                f"{name} scores {metric.name} {other.value:.6g} on {other.samples} test samples, the model in memory "
                f"{reference.value:.6g} on {reference.samples}; accepted is a difference of {allowed:.2g}"
            )


def _costs(model: nn.Module, plan: Plan, example: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """The plan's costs, each with what counting the built model says, which must not contradict it."""
    counted, planned = count_costs(model, example), plan.costs()
    problem = contradiction(counted, planned)
    if problem is not None:
        raise ExportError(f"the model {problem}; it is not of this plan")
    return {
        name: {
            "value": cost.value,
            "dense": cost.dense,
            "ratio": cost.ratio,
            "unit": cost_metrics[name].unit,
            **({"counted": counted[name]} if name in counted else {}),
        }
        for name, cost in planned.items()
    }


def _checked_size(path: Path, predicted: float) -> int:
    """Bytes of a file, which the plan's cost must not be less than: a budget rests on it."""
    size = path.stat().st_size
    if size > predicted:
        raise ExportError(f"the ONNX file has {size:,} bytes, its plan says at most {predicted:,.0f}; lower the budget")
    return size


def onnx_samples(task: Task, count: int = 8) -> tuple[torch.Tensor, ...]:
    """Inputs of the first validation samples, at most ``count``, on the CPU."""
    inputs = task.inputs(next(iter(task.batches("val"))))
    return tuple(tensor[:count].cpu() for tensor in inputs)


def onnx_metadata(task: Task) -> dict[str, str]:
    """What is written into the ONNX file itself, for whoever has nothing else."""
    preprocessing = task.preprocessing
    return {"task": task.name} | (
        {"preprocessing": json.dumps(preprocessing.to_json())} if preprocessing is not None else {}
    )


def _manifest(task: Task, exported: OnnxModel, costs: dict[str, Any], scores: Mapping[str, Score]) -> dict[str, Any]:
    preprocessing = task.preprocessing
    inputs = [asdict(port) for port in exported.inputs]
    reference = scores["torch"]
    return {
        "format": FORMAT,
        "task": {"name": task.name, "digest": task.digest},
        "input": inputs[0],
        **({"further_inputs": inputs[1:]} if len(inputs) > 1 else {}),
        "outputs": [asdict(port) for port in exported.outputs],
        "opset": exported.opset,
        "preprocessing": None if preprocessing is None else preprocessing.to_json(),
        "classes": None if preprocessing is None else list(preprocessing.classes),
        "costs": costs,
        "accuracies": {
            "metric": task.metric.name,
            "higher_is_better": task.metric.higher_is_better,
            "split": "test",
            "samples": reference.samples,
            "standard_error": reference.standard_error,
            **{name: found.value for name, found in scores.items()},
        },
        "max_abs_difference": {str(size): value for size, value in exported.differences.items()},
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # optional, or run from a checkout that is not installed
            continue
    return found
