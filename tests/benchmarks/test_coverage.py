"""The coverage benchmark: journal, limits, verdicts, table and judge, without timm and Torch-Pruning."""

from __future__ import annotations

import copy
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.seeding import seeded

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture(scope="module")
def parts() -> Iterator[Any]:
    """The benchmark's modules, which live beside their script and not in the package."""
    sys.path.insert(0, str(FOLDER))
    names = ("models", "oracle", "ours", "preparation", "runs", "table")
    try:
        yield SimpleNamespace(**{name: importlib.import_module(f"coverage_lib.{name}") for name in names})
    finally:
        sys.path.remove(str(FOLDER))
        for name in [name for name in sys.modules if name.startswith("coverage_lib")]:
            del sys.modules[name]


class Small(nn.Module):
    """A residual stream with batch norm, a hidden layer, and a head; optionally group norm after the stream."""

    def __init__(self, *, grouped: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 1))
        self.norm = nn.GroupNorm(2, 8) if grouped else nn.Identity()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 64, 11))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        out: torch.Tensor = self.head(self.norm(x + self.inner(x)))
        return out


def entry(parts: Any, build: Any = Small) -> Any:
    return parts.models.Entry("local/small", "cnn", build, 8)


def test_a_model_is_measured_in_full(parts: Any) -> None:
    facts: dict[str, Any] = {}
    parts.ours.measure(entry(parts), facts.update)
    assert parts.table.verdict(facts | {"status": "done"}) == "exact"
    assert [facts[step] for step in ("forward", "backward", "reload", "deepcopy", "costs", "onnx")] == [True] * 6
    assert facts["conv_share"] == 1
    assert facts["cut_share"] == pytest.approx(28 / 39)
    assert facts["share"] == pytest.approx(28 / 39)  # all but the 11 outputs
    assert facts["skipped"] == ["11 channels: they are the model's output"]
    assert facts["oracle"]["sensitivity"] > 0.1


def test_a_norm_over_channels_is_exact_with_its_statistics_frozen(parts: Any) -> None:
    facts: dict[str, Any] = {}
    parts.ours.measure(entry(parts, lambda: Small(grouped=True)), facts.update, onnx=False)
    assert facts["oracle"]["error"] > 1e-3
    assert facts["oracle"]["frozen_error"] < 1e-12
    assert parts.table.verdict(facts | {"status": "done"}) == "exact, statistics frozen"


def _judged(parts: Any, spoil: Any) -> Any:
    """The judgement of a pruned model whose index maps were spoilt."""
    with seeded("judged"):
        dense = Small().double()
        parts.preparation.enliven(dense, (torch.randn(4, 3, 8, 8).double(),))
    inputs = (torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3)).double(),)
    tagged = copy.deepcopy(dense)
    parts.oracle.tag(tagged)
    graph = ChannelGraph.trace(dense, inputs)
    pruned = prune(tagged, graph.plan({"stem.0": [0, 3, 4], "inner.0": [1, 2, 7, 9]}))
    spoil(pruned)
    kept = parts.oracle.untag(pruned, parts.oracle.floats(dense))
    return parts.oracle.judge(dense, pruned, kept, inputs)


def test_the_judge_accepts_right_index_maps_and_sees_wrong_ones(parts: Any) -> None:
    assert _judged(parts, lambda model: None)["error"] < 1e-12

    def swap(model: Any) -> None:  # the consumer's columns in another order: all shapes are right
        model.inner[3].weight.data = model.inner[3].weight.data.flip(1)

    assert _judged(parts, swap)["error"] > 1e-3


def test_the_judge_refuses_values_of_no_element(parts: Any) -> None:
    def spoil(model: Any) -> None:
        model.stem[0].weight.data += 1e6

    with pytest.raises(ValueError, match=r"stem\.0\.weight"):
        _judged(parts, spoil)


def test_enlivened_models_have_no_constant_parameters_and_unit_outputs(parts: Any) -> None:
    model = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(20)], nn.BatchNorm2d(3))
    inputs = (torch.randn(4, 3, 8, 8),)
    parts.preparation.enliven(model, inputs)
    assert all(float(p.detach().std()) > 0 for p in model.parameters())
    assert 0.5 < float(model[:20](inputs[0]).detach().std()) < 2  # without it, 20 layers leave about 1e-5 of the signal
    assert not model.training


def test_a_crash_keeps_what_was_reported(parts: Any) -> None:
    def action(report: Any) -> None:
        report({"stage": "trace"})
        raise KeyError("layer 3")

    result = parts.runs.measured(action, parts.runs.Limits(60))
    assert (result["status"], result["stage"], result["error"]) == ("crash", "trace", "KeyError: 'layer 3'")
    assert "test_coverage.py" in result["where"]


def test_a_dead_process_and_a_hang_end_the_measurement_only(parts: Any) -> None:
    result = parts.runs.measured(lambda report: os.kill(os.getpid(), signal.SIGKILL), parts.runs.Limits(60))
    assert (result["status"], result["error"]) == ("crash", "exit status -9")

    def hang(report: Any) -> None:
        report({"stage": "proof"})
        time.sleep(600)

    result = parts.runs.measured(hang, parts.runs.Limits(1))
    assert (result["status"], result["stage"]) == ("timeout", "proof")


def test_the_memory_limit_ends_the_measurement_only(parts: Any) -> None:
    def greedy(report: Any) -> None:
        report({"bytes": torch.ones(2**28).numel()})  # 1 GiB

    result = parts.runs.measured(greedy, parts.runs.Limits(60, 2**30 // 2))
    assert result["status"] == "crash"
    assert "bytes" not in result


def test_the_journal_resumes_and_ignores_a_torn_line(parts: Any, tmp_path: Path) -> None:
    journal = parts.runs.Journal(tmp_path / "deep" / "results.jsonl")
    assert journal.read() == {}
    journal.append({"model": "a", "tool": "ours", "status": "crash"})
    journal.append({"model": "a", "tool": "ours", "status": "done"})
    with journal.path.open("a") as file:
        file.write('{"model": "b", "to')
    journal.append({"model": "c", "tool": "ours", "status": "done"})
    assert {key: result["status"] for key, result in journal.read().items()} == {
        ("a", "ours"): "done",
        ("c", "ours"): "done",
    }


GOOD = {
    "status": "done", "kind": "cnn", "pruned": True, "groups": 3, "forward": True, "backward": True, "reload": True,
    "deepcopy": True, "costs": True, "onnx": True, "oracle": {"error": 1e-15, "sensitivity": 0.4}, "params": 100,
    "params_left": 26, "cut_share": 0.97, "share": 0.97, "conv_share": 1.0, "proof_error": 2e-16,
    "trace_seconds": {"wall": 1.0, "processor": 0.5}, "skipped": ["11 channels: they are the model's output"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "exact"),
        ({"oracle": {"error": 0.2, "frozen_error": 1e-14}}, "exact, statistics frozen"),
        ({"oracle": {"error": 0.2, "frozen_error": 0.1, "recomputed_error": 1e-14}}, "exact, recomputed"),
        ({"oracle": {"error": 0.2, "frozen_error": 0.1, "recomputed_error": 0.1}}, "differs"),
        ({"oracle": {"error": float("nan"), "frozen_error": float("nan")}}, "differs"),
        ({"oracle": "ValueError: the pruned model runs other operators"}, "broken: other operators"),
        ({"own_widths": 0.2}, "differs"),
        ({"own_widths": float("nan")}, "differs"),
        ({"own_widths": "PlanError: the pruned model does not run"}, "differs"),
        ({"groups": 0}, "all protected"),
        ({"forward": "RuntimeError: shapes"}, "broken: forward"),
        ({"backward": "ValueError: 2 parameters get no gradient any more"}, "broken: training"),
        ({"pruned": False, "status": "timeout"}, "timeout"),
        ({"pruned": False, "status": "crash"}, "crash"),
    ],
)
def test_verdicts(parts: Any, change: dict[str, Any], expected: str) -> None:
    assert parts.table.verdict(GOOD | change) == expected


def test_summary_and_table(parts: Any) -> None:
    results = {
        ("timm/a", "ours"): GOOD,
        ("timm/b", "ours"): GOOD | {"conv_share": 0.5, "onnx": "ExportError: no", "skipped": ["9 channels: a | b"]},
        ("timm/a", "torch-pruning"): {"status": "crash", "kind": "cnn", "stage": "trace", "error": "KeyError: 1"},
        ("torchvision/c", "ours"): GOOD | {"kind": "attention", "conv_share": 0.1},
    }
    found = parts.table.summary(results)
    assert found["models"] == 3
    assert found["narrower"] == []
    assert (found["ours"]["right"], found["ours"]["right_share"]) == (3, 1.0)
    assert (found["torch-pruning"]["right"], found["torch-pruning"]["verdicts"]) == (0, {"crash": 1})
    assert found["cnn"] == {"measured": 2, "at_least_80_percent": 1}
    assert found["onnx"] == {"tried": 3, "equal": 2}
    json.dumps(found, allow_nan=False)
    text = parts.table.markdown(results, ["a note"])
    rows = [line for line in text.splitlines() if line.startswith("| t")]
    assert [row.split(" | ")[0] for row in rows] == ["| torchvision/c", "| timm/a", "| timm/b"]
    header = next(line for line in text.splitlines() if line.startswith("| model"))
    assert {row.count(" | ") for row in rows} == {header.count(" | ")}
    assert "- timm/b, ours: onnx: ExportError: no; 9 channels: a | b" in text
    assert "- timm/a, torch-pruning: crash in trace; KeyError: 1" in text


@pytest.mark.parametrize(
    ("ours", "peer", "narrower"),
    [
        ({"cut_share": 0.9}, {}, ["m"]),
        ({"cut_share": 0.965, "params_left": 30}, {}, []),
        ({"cut_share": 0.9}, {"forward": "RuntimeError: shapes"}, []),
        ({"groups": 0}, {}, ["m"]),
    ],
)
def test_where_the_peer_cuts_more_is_named(
    parts: Any, ours: dict[str, Any], peer: dict[str, Any], narrower: list[str]
) -> None:
    results = {("m", "ours"): GOOD | ours, ("m", "torch-pruning"): GOOD | peer}
    assert parts.table.summary(results)["narrower"] == narrower
    del results["m", "ours"]
    assert parts.table.summary(results)["narrower"] == []  # ours was not measured: nothing is known


def test_the_table_says_when_the_peer_is_not_installed(parts: Any) -> None:
    text = parts.table.markdown({("timm/a", "ours"): GOOD}, [])
    assert "Torch-Pruning was not installed" in text
    assert "TP verdict" not in text


def test_the_catalogue_has_torchvisions_families(parts: Any) -> None:
    entries = parts.models.catalogue()
    assert sum(name.startswith("torchvision/") for name in entries) >= 40
    assert {entry.kind for entry in entries.values()} == {"cnn", "attention", "segmentation", "backbone"}
    with torch.no_grad():
        maps = entries["torchvision/lraspp_mobilenet_v3_large"].build().eval()(torch.randn(1, 3, 64, 64))
    assert maps["out"].shape == (1, parts.models.CLASSES, 64, 64)
