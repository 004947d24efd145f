"""An exported model is complete and right, or it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.costs.latency import Fingerprint, LatencyMeasurement
from automl_prune.errors import CheckpointError, ExportError
from automl_prune.evaluation import FineTuning, finetune, score
from automl_prune.export import bundle, load_pruned
from automl_prune.export.bundle import export_model, score_tolerance
from automl_prune.export.onnx import export_onnx
from automl_prune.files import read_json, sha256, tensors_digest
from automl_prune.models import resnet8
from automl_prune.seeding import seeded
from automl_prune.tasks import Metric, Score, Task
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import TensorImages

CPU = torch.device("cpu")


def factory() -> nn.Module:
    return resnet8(num_classes=10, in_channels=1, width=4)


def _plan(model: nn.Module, task: Task) -> Plan:
    graph = ChannelGraph.trace(model, task.example_inputs)
    return graph.plan({group.name: range(1, group.width) for group in graph.groups})


def _trained(task: Task) -> tuple[nn.Module, Plan]:
    with seeded("bundle"):
        dense = factory().eval()
    plan = _plan(dense, task)
    recipe = FineTuning(steps=40, learning_rate=0.1, distillation=0)
    return finetune(prune(dense, plan), task, recipe, seed=0, device=CPU), plan


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, digits_task: Task) -> tuple[Path, nn.Module, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("models") / "17"
    model, plan = _trained(digits_task)
    manifest = export_model(model, plan, digits_task, directory, dense=factory(), info={"trial": 17})
    return directory, model, manifest


def test_the_latency_of_the_written_file_itself_is_in_the_manifest(
    exported: tuple[Path, nn.Module, dict[str, Any]], regression_task: Task, tmp_path: Path
) -> None:
    assert "latency" not in exported[2]  # not measured is absent
    files = []

    def measure(file: bytes, model: nn.Module) -> LatencyMeasurement:
        files.append(file)
        place = Fingerprint("onnxruntime 1.0", "CPUExecutionProvider", "a processor", 2, 1, 1, "wall time")
        return LatencyMeasurement(((0.5,),) * 6, ((1.0,),) * 6, 0.004, place)

    dense = _regressor()
    plan, directory = _plan(dense, regression_task), tmp_path / "measured"
    manifest = export_model(prune(dense, plan), plan, regression_task, directory, dense=dense, measure=measure)
    assert files == [(directory / "model.onnx").read_bytes()]
    assert (manifest["latency"]["seconds"], manifest["latency"]["ratio"]) == (0.002, 0.5)
    assert manifest["latency"]["interval"] == [0.5, 0.5]
    assert manifest["latency"]["fingerprint"]["threads"] == 1


def test_the_manifest_is_true(exported: tuple[Path, nn.Module, dict[str, Any]], digits_task: Task) -> None:
    directory, model, manifest = exported
    assert read_json(directory / "manifest.json") == manifest
    accuracies, expected = manifest["accuracies"], score(model, digits_task, "test", CPU)
    assert accuracies["torch"] == accuracies["reloaded"] == accuracies["onnxruntime"] == expected.value
    assert expected.value > 0.3, "too weak a model to tell right from wrong"
    assert (accuracies["samples"], accuracies["split"]) == (128, "test")
    macs = manifest["costs"]["macs"]
    assert macs["value"] == macs["counted"] == macs["counted_in_onnx"] < macs["dense"]
    assert manifest["costs"]["params"]["counted"] == sum(p.numel() for p in model.parameters())
    for name, digest in manifest["sha256"].items():
        assert digest == sha256(directory / name)
        assert manifest["bytes"][name] == len((directory / name).read_bytes())
    assert sorted(p.name for p in directory.iterdir()) == sorted([*manifest["sha256"], "manifest.json"])
    assert [p.name for p in directory.parent.iterdir()] == ["17"]
    assert manifest["trial"] == 17
    assert manifest["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert max(manifest["max_abs_difference"].values()) < 1e-3


def test_the_files_restore_the_model(exported: tuple[Path, nn.Module, dict[str, Any]], digits_task: Task) -> None:
    directory, model, manifest = exported
    restored = load_pruned(directory, factory())
    assert tensors_digest(restored.state_dict()) == tensors_digest(model.state_dict())
    assert score(restored, digits_task, "test", CPU).value == manifest["accuracies"]["reloaded"]


def test_the_onnx_file_and_raw_images_are_enough(
    exported: tuple[Path, nn.Module, dict[str, Any]], digits_task: Classification
) -> None:
    """As someone would who has nothing of this package: NumPy and ONNX Runtime."""
    directory, _, manifest = exported
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), providers=["CPUExecutionProvider"])
    recipe = json.loads(session.get_modelmeta().custom_metadata_map["preprocessing"])
    assert recipe == json.loads(json.dumps(manifest["preprocessing"]))
    assert isinstance(digits_task.images, TensorImages)
    raw = digits_task.images.splits["test"]
    images = raw.images.numpy().astype(np.float32) / np.float32(recipe["value_range"][1])
    images = (images - np.float32(recipe["mean"])) / np.float32(recipe["std"])
    (logits,) = session.run(None, {manifest["input"]["name"]: images})
    accuracy = float((logits.argmax(1) == raw.labels.numpy()).mean())
    assert accuracy == manifest["accuracies"]["onnxruntime"]
    assert len(manifest["classes"]) == logits.shape[1]


def _regressor() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 2))


def test_another_kind_of_task_is_exported_and_replaced(tmp_path: Path, regression_task: Task) -> None:
    dense = _regressor()
    plan = _plan(dense, regression_task)
    model = prune(dense, plan).train()
    before = tensors_digest(model.state_dict())
    for trial in (1, 2):
        manifest = export_model(model, plan, regression_task, tmp_path / "x", dense=_regressor(), info={"trial": trial})
    assert read_json(tmp_path / "x" / "manifest.json")["trial"] == 2
    assert manifest["preprocessing"] is None
    assert manifest["accuracies"]["onnxruntime"] == pytest.approx(manifest["accuracies"]["torch"], rel=1e-4)
    assert model.training
    assert tensors_digest(model.state_dict()) == before
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


class Deceiving(nn.Module):
    """Another function while it is exported: what a wrong translation does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = _regressor()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(x) * (1.01 if torch.compiler.is_exporting() else 1.0)
        return result


def test_a_wrong_onnx_file_leaves_only_the_older_export(tmp_path: Path, regression_task: Task) -> None:
    dense = Deceiving()
    plan = _plan(dense, regression_task)
    old = tmp_path / "x"
    old.mkdir()
    (old / "manifest.json").write_text("old")
    with pytest.raises(ExportError, match="differs by"):
        export_model(prune(dense, plan), plan, regression_task, old, dense=Deceiving())
    assert [p.name for p in tmp_path.rglob("*")] == ["x", "manifest.json"]
    assert (old / "manifest.json").read_text() == "old"


def test_scores_that_disagree_stop_the_export(
    tmp_path: Path, regression_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = _regressor()
    plan = _plan(dense, regression_task)
    model = prune(dense, plan)
    true = score(model, regression_task, "test", CPU)
    wrong = [Score(true.value * 1.001, true.samples), Score(true.value, true.samples - 1), Score(np.nan, true.samples)]
    real = export_onnx(model, regression_task.example_inputs, tmp_path / "real.onnx")
    (tmp_path / "real.onnx").unlink()

    def written(model: nn.Module, example: Any, path: Path, **_: Any) -> Any:
        path.write_bytes(b"")
        return real

    monkeypatch.setattr(bundle, "export_onnx", written)  # seconds each, and right
    for other in wrong:
        monkeypatch.setattr(bundle, "score_onnx", lambda *_, other=other, **__: other)
        with pytest.raises(ExportError, match="onnxruntime scores rmse"):
            export_model(model, plan, regression_task, tmp_path / "x", dense=_regressor())
    monkeypatch.setattr(bundle, "score_onnx", lambda *_, **__: true)
    with pytest.raises(ExportError, match="would hide the manifest's own costs"):
        export_model(model, plan, regression_task, tmp_path / "x", dense=_regressor(), info={"costs": 1})
    assert list(tmp_path.iterdir()) == []


def test_another_factory_or_plan_exports_nothing(tmp_path: Path, regression_task: Task) -> None:
    dense = _regressor()
    plan = _plan(dense, regression_task)
    with pytest.raises(ExportError, match="it is not of this plan"):
        export_model(dense, plan, regression_task, tmp_path / "x", dense=_regressor())
    wider = nn.Sequential(nn.Conv2d(1, 7, 3), nn.ReLU(), nn.Flatten(), nn.Linear(252, 2))
    with pytest.raises(CheckpointError, match="another model"):
        export_model(prune(dense, plan), plan, regression_task, tmp_path / "x", dense=wider)
    assert list(tmp_path.iterdir()) == []


def test_one_borderline_sample_is_tolerated_and_no_more() -> None:
    accuracy, rmse = Metric("accuracy", higher_is_better=True, percent=True), Metric("rmse", higher_is_better=False)
    assert score_tolerance(accuracy, 500, 0.9) == 1 / 500
    assert score_tolerance(accuracy, 50_000, 0.9) == 1e-4
    assert score_tolerance(rmse, 500, -2.0) == pytest.approx(2e-4)
