from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, load_or_collect
from automl_prune.calibration import store as module
from automl_prune.errors import CheckpointError
from automl_prune.tasks import Task
from tests.views import Recorder

CPU = torch.device("cpu")
SETTINGS = CalibrationSettings(samples=64, positions=4, gradient_samples=64)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which passes over the data were made."""
    made: list[str] = []

    def counted(name: str) -> Any:
        original = getattr(module, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            made.append(name)
            return original(*args, **kwargs)

        return call

    for name in ("collect", "with_gradients"):
        monkeypatch.setattr(module, name, counted(name))
    return made


def _equal(a: Calibration, b: Calibration) -> bool:
    plain = [(name, layer.parts, layer.kernel, layer.exact, layer.rows) for name, layer in a.layers.items()]
    if plain != [(name, layer.parts, layer.kernel, layer.exact, layer.rows) for name, layer in b.layers.items()]:
        return False
    for name, layer in a.layers.items():
        for kind in ("covariance", "mean", "channel_mean", "channel_variance", "zero_fraction", "taylor"):
            mine, theirs = getattr(layer, kind), getattr(b.layers[name], kind)
            if (mine is None) != (theirs is None) or (mine is not None and not torch.equal(mine, theirs)):
                return False
    return replace(a, layers={}) == replace(b, layers={})


def test_it_is_collected_once_and_gradients_are_added(
    tmp_path: Path, digits_task: Task, tiny_resnet: nn.Module, passes: list[str]
) -> None:
    path, view = tmp_path / "calibration.safetensors", Recorder()

    def get(*, gradients: bool = False) -> Calibration:
        return load_or_collect(path, tiny_resnet, digits_task, SETTINGS, device=CPU, gradients=gradients, view=view)

    first = get()
    assert _equal(first, get())
    assert passes == ["collect"]
    with_products = get(gradients=True)
    assert _equal(with_products, get())
    assert passes == ["collect", "with_gradients"]
    assert with_products.layers["fc.weight"].taylor is not None
    assert not _equal(first, with_products)
    assert view.said == []


def test_what_is_stale_is_never_used(
    tmp_path: Path, digits_task: Task, tiny_resnet: nn.Module, passes: list[str]
) -> None:
    path, view = tmp_path / "calibration.safetensors", Recorder()
    load_or_collect(path, tiny_resnet, digits_task, SETTINGS, device=CPU)
    with torch.no_grad():
        tiny_resnet.get_parameter("conv1.weight").mul_(2)
    again = load_or_collect(path, tiny_resnet, digits_task, SETTINGS, device=CPU, view=view)
    other = replace(SETTINGS, positions=5)
    load_or_collect(path, tiny_resnet, digits_task, other, device=CPU, view=view)
    assert passes == ["collect"] * 3
    assert "of other model" in view.said[0]
    assert "of other settings" in view.said[1]
    assert not _equal(again, module.load(path))


@pytest.mark.parametrize("damage", ["cut", "bit", "foreign", "version", "entry"])
def test_what_is_damaged_is_rebuilt_and_said(
    tmp_path: Path, digits_task: Task, tiny_resnet: nn.Module, damage: str
) -> None:
    path, view = tmp_path / "calibration.safetensors", Recorder()
    whole = load_or_collect(path, tiny_resnet, digits_task, SETTINGS, device=CPU)
    content = path.read_bytes()
    damaged = {
        "cut": content[: len(content) // 2],
        "bit": content[:-1] + bytes([content[-1] ^ 1]),
        "foreign": b"PK\x03\x04 no tensors",
        "version": content.replace(b'"format":"2"', b'"format":"0"'),
        "entry": content.replace(b"gradient_samples", b"gradient_simples"),
    }[damage]
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError):
        module.load(path)
    rebuilt = load_or_collect(path, tiny_resnet, digits_task, SETTINGS, device=CPU, view=view)
    assert _equal(rebuilt, whole)
    assert view.said[0].startswith("Calibrating anew: ")
    assert _equal(module.load(path), whole)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_nothing_is_written_without_a_path(
    tmp_path: Path, digits_task: Task, tiny_resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = load_or_collect(None, tiny_resnet, digits_task, SETTINGS, device=CPU)
    assert found.samples == 64
    assert not list(tmp_path.iterdir())
