"""ONNX files against torch: every claim about a file is checked by running or reading the file."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from automl_prune.costs import count_macs
from automl_prune.errors import ExportError, Interrupted
from automl_prune.evaluation import score
from automl_prune.export.onnx import OnnxModel, export_onnx, score_onnx, verify_onnx
from automl_prune.files import tensors_digest
from automl_prune.models import densenet_bc, lenet5, resnet8
from automl_prune.seeding import generator, seeded
from automl_prune.tasks import Task

CPU = torch.device("cpu")


def _images(count: int, *shape: int) -> tuple[torch.Tensor]:
    return (torch.randn(count, *shape, generator=generator("onnx", count)),)


class Exported:
    """One export that many tests look at, since an export takes seconds."""

    def __init__(self, folder: Path) -> None:
        with seeded("onnx"):
            self.model = resnet8(num_classes=10, in_channels=1, width=4).train()
            self.model.get_submodule("bn1").eval()
        self.before = (tensors_digest(self.model.state_dict()), [m.training for m in self.model.modules()])
        self.path = folder / "model.onnx"
        self.found: OnnxModel = export_onnx(self.model, _images(3, 1, 8, 8), self.path, metadata={"task": "digits"})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return Exported(tmp_path_factory.mktemp("onnx"))


def test_the_file_computes_what_the_model_does_at_any_batch_size(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
    model = copy.deepcopy(exported.model).eval()
    for size in (1, 2, 7):
        images = _images(size, 1, 8, 8)
        with torch.no_grad():
            expected = model(*images)
        (actual,) = session.run(None, {"input": images[0].numpy()})
        torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-5)


def test_what_is_said_of_the_file_is_in_it(exported: Exported) -> None:
    proto = onnx.load(exported.path)
    (inputs,), (outputs,) = exported.found.inputs, exported.found.outputs
    assert (inputs.name, inputs.shape, inputs.dtype) == ("input", ("batch", 1, 8, 8), "float32")
    assert (outputs.name, outputs.shape, outputs.dtype) == ("output", ("batch", 10), "float32")
    assert exported.found.opset == next(entry.version for entry in proto.opset_import if not entry.domain)
    assert exported.found.macs == count_macs(exported.model, _images(1, 1, 8, 8))
    assert set(exported.found.differences) == {1, 5}
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"task": "digits"}


def test_the_model_is_not_changed_and_nothing_lies_beside_the_file(exported: Exported) -> None:
    assert exported.before == (
        tensors_digest(exported.model.state_dict()),
        [m.training for m in exported.model.modules()],
    )
    assert [p.name for p in exported.path.parent.iterdir()] == ["model.onnx"]


def test_neither_source_code_nor_local_paths_are_in_the_file(exported: Exported) -> None:
    content = exported.path.read_bytes()
    for private in (b"stack_trace", b".py", b"automl_prune", b"site-packages"):
        assert private not in content


def test_other_weights_are_told_apart(exported: Exported) -> None:
    model = copy.deepcopy(exported.model).eval()
    samples = _images(5, 1, 8, 8)
    verify_onnx(exported.path, model, samples)
    with torch.no_grad():
        model.get_parameter("conv1.weight").mul_(1.01)
    with pytest.raises(ExportError, match="differs by"):
        verify_onnx(exported.path, model, samples)
    with torch.no_grad():
        model.get_parameter("conv1.weight").fill_(torch.nan)
    with pytest.raises(ExportError, match="differs by"):
        verify_onnx(exported.path, model, samples)


def test_a_damaged_file_is_refused(exported: Exported, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(exported.path.read_bytes()[:-2000])
    with pytest.raises(ExportError):
        verify_onnx(damaged, copy.deepcopy(exported.model).eval(), _images(5, 1, 8, 8))


def test_a_file_scores_as_the_model(exported: Exported, digits_task: Task) -> None:
    model = copy.deepcopy(exported.model).eval()
    assert score_onnx(exported.path, digits_task, "test") == score(model, digits_task, "test", CPU)


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 6)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool(x.sum() > 0) else x


class Deceiving(nn.Module):
    """Computes something else while it is exported, as a wrongly translated operator would."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (1.001 if torch.compiler.is_exporting() else 1.0)


class Counting(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x * 2, 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (FixedBatch(), "batch of 1"),
        (Branching(), "branches on tensor values"),
        (Deceiving(), "differs by"),
        (Counting(), "ONNX needs tensors"),
    ],
)
def test_what_cannot_be_exported_rightly_leaves_no_file(tmp_path: Path, model: nn.Module, said: str) -> None:
    with pytest.raises(ExportError, match=said):
        export_onnx(model, (torch.ones(4, 6),), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lenet5(num_classes=10, in_channels=1), (1, 28, 28)),  # flattens by view
        (densenet_bc(num_classes=10, in_channels=3, depth=10, growth=4), (3, 8, 8)),  # concatenates
    ],
)
def test_flattened_and_concatenated_networks_keep_a_dynamic_batch(
    tmp_path: Path, model: nn.Module, shape: tuple[int, ...]
) -> None:
    found = export_onnx(model, _images(5, *shape), tmp_path / "model.onnx")
    assert found.inputs[0].shape == ("batch", *shape)
    assert found.macs == count_macs(model, _images(1, *shape))


class Forked(nn.Module):
    """Two inputs, a dictionary of outputs, and every kind of product that costs."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 8, 3, stride=2, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.head = nn.Linear(6, 5)
        self.bare = nn.Parameter(torch.randn(5, 3))

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, Any]:
        maps = self.up(self.grouped(image).relu())
        hidden = self.head(maps.mean((2, 3)))
        return {"logits": (hidden * scale) @ self.bare, "maps": (maps,)}


def test_several_inputs_and_nested_outputs(tmp_path: Path) -> None:
    with seeded("forked"):
        model = Forked().eval()
    inputs = (*_images(5, 4, 9, 9), torch.rand(5, 1) + 1)
    found = export_onnx(model, inputs, tmp_path / "model.onnx")
    assert [port.name for port in found.inputs] == ["input_0", "input_1"]
    assert [port.shape for port in found.outputs] == [("batch", 3), ("batch", 6, 8, 8)]
    assert found.macs == count_macs(model, inputs)

    class Pairs:
        """Just what ``score_onnx`` asks of a task."""

        def batches(self, split: str) -> list[Any]:
            return [inputs]

        def inputs(self, batch: Any) -> Any:
            return batch

        def score(self, predictions: Any) -> float:
            ((outputs, _),) = predictions
            return float(np.abs(outputs["maps"][0].numpy() - expected["maps"][0].numpy()).max())

    with torch.no_grad():
        expected = model(*inputs)
    _, structure = tree_flatten(expected)
    task: Any = Pairs()
    difference: Any = score_onnx(tmp_path / "model.onnx", task, "test", structure=structure)
    assert difference < 1e-5


class Recurrent(nn.Module):
    """A recurrent layer, whose exporter has much to say."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gru, self.head = nn.Conv1d(3, 8, 3), nn.GRU(8, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(self.conv(x).relu().transpose(1, 2))
        return torch.as_tensor(self.head(hidden[:, -1]))


def test_a_recurrent_network_is_exported_without_a_word(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export_onnx(Recurrent().eval(), (torch.randn(2, 3, 10),), tmp_path / "model.onnx")
    assert capfd.readouterr().err == ""


def test_a_stop_during_an_export_is_not_the_model_s_fault(tmp_path: Path) -> None:
    class Stopped(nn.Module):
        """Asked to stop in the exporter's pass, the second."""

        def __init__(self) -> None:
            super().__init__()
            self.fc, self.passes = nn.Linear(3, 2), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.passes += 1
            if self.passes > 1:
                raise Interrupted("stopped by SIGTERM")
            return torch.as_tensor(self.fc(x))

    with pytest.raises(Interrupted):
        export_onnx(Stopped().eval(), (torch.randn(2, 3),), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
