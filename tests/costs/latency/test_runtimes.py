"""The registered runtimes: what they load, how they say what is missing, and that they leave the process alone."""

from __future__ import annotations

import io
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from automl_prune.costs.latency import LatencySettings, profile_nodes, runtimes
from automl_prune.costs.latency.runtime import Model
from automl_prune.errors import ConfigError, ExportError

INPUTS = (torch.randn(2, 3, 8, 8),)


def _model(form: str) -> Model:
    if form == "torch":
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    node = onnx.helper.make_node("Relu", ["input"], ["output"], name="relu")
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
        for name in ("input", "output")
    ]
    graph = onnx.helper.make_graph([node], "graph", values[:1], values[1:])
    opset = [onnx.helper.make_opsetid("", 18)]
    file = io.BytesIO()
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), file)
    return file.getvalue()


@pytest.mark.parametrize("name", ["onnxruntime", "torch"])
def test_a_loaded_model_runs_and_says_how_long(name: str) -> None:
    settings, runtime, threads = LatencySettings(runtime=name, threads=1), runtimes[name], torch.get_num_threads()
    with runtime.pinned(settings):
        run = runtime.load(_model(runtime.form), INPUTS, settings)
        assert run() > 0
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["onnxruntime", "torch", "torch.compile"])
def test_a_provider_that_is_not_there_is_an_error_that_lists_those_that_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"available: (CPUExecutionProvider|cpu)"):
        runtimes[name].fingerprint(LatencySettings(runtime=name, provider="AbacusExecutionProvider"))


@pytest.mark.parametrize("name", ["onnxruntime", "torch", "torch.compile"])
def test_the_fingerprint_holds_what_was_asked_for(name: str) -> None:
    found = runtimes[name].fingerprint(LatencySettings(runtime=name, threads=2, batch_size=3))
    assert (found.threads, found.batch_size) == (2, 3)
    assert found.runtime.startswith(f"{name} ")
    assert found.device
    assert found.clock == "wall time"  # the calling thread's processor time is no measure of two threads' work


def test_torch_runs_with_so_many_threads_and_gives_them_back_after_an_error() -> None:
    before = torch.get_num_threads()
    pinned = runtimes["torch"].pinned(LatencySettings(runtime="torch", threads=before + 1))

    def fail() -> None:
        with pinned:
            assert torch.get_num_threads() == before + 1
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert torch.get_num_threads() == before


# Threads are counted in /proc, which other systems lack; nothing but the counting is left out there.
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists a process's threads")
def test_onnxruntime_runs_with_so_many_threads() -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    settings, model = LatencySettings(threads=2), _model("onnx")
    before = threads()
    runs = [runtimes["onnxruntime"].load(model, INPUTS, settings) for _ in range(2)]
    assert threads() == before + 2, "one beside the caller's for each model"
    assert all(run() > 0 for run in runs)
    runs.clear()
    assert threads() == before


def test_a_file_that_is_no_model_is_an_export_error() -> None:
    with pytest.raises(ExportError, match="cannot load"):
        runtimes["onnxruntime"].load(b"nothing", INPUTS, LatencySettings())


def test_the_profiler_names_the_kernels_and_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = _model("onnx")
    assert isinstance(model, bytes)
    seconds = profile_nodes(model, INPUTS, LatencySettings(), runs=3)
    assert list(seconds) == ["relu"]
    assert seconds["relu"] >= 0
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("setting", [{"threads": 0}, {"batch_size": 0}, {"precision": 0.0}, {"time_limit": -1.0}])
def test_settings_are_positive(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be more than 0"):
        LatencySettings(**setting)  # type: ignore[arg-type]  # what is tried
