"""What is saved comes back to the bit; whatever does not fit is refused with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, Plan, prune
from automl_prune.errors import CheckpointError
from automl_prune.export import load_pruned, save_pruned
from automl_prune.export.checkpoint import FORMAT, PLAN, WEIGHTS, _checksum
from automl_prune.files import load_tensors, save_tensors, tensors_digest
from automl_prune.models import resnet8, resnet20
from automl_prune.seeding import seeded

IMAGES = (torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)),)


def factory() -> nn.Module:
    return resnet8(num_classes=10, in_channels=1, width=4)


def _plan(model: nn.Module, inputs: tuple[torch.Tensor, ...] = IMAGES) -> Plan:
    graph = ChannelGraph.trace(model, inputs)
    return graph.plan({group.name: range(1, group.width, 2) for group in graph.groups})


@pytest.fixture
def saved(tmp_path: Path, tiny_resnet: nn.Module) -> tuple[Path, nn.Module]:
    small = prune(tiny_resnet, _plan(tiny_resnet)).eval()
    save_pruned(tmp_path, small, _plan(tiny_resnet))
    return tmp_path, small


def _rewrite(directory: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a plan file as someone would who knows how to compute the checksum, in both files."""
    content = json.loads((directory / PLAN).read_text())
    change(content)
    body = {key: value for key, value in content.items() if key not in ("format", "checksum")}
    content["checksum"] = _checksum(body)
    (directory / PLAN).write_text(json.dumps(content))
    weights, metadata = load_tensors(directory / WEIGHTS)
    save_tensors(directory / WEIGHTS, weights, {**metadata, "plan": content["checksum"]})


def test_a_saved_model_comes_back_to_the_bit_in_a_fresh_factory(saved: tuple[Path, nn.Module]) -> None:
    directory, small = saved
    dense = factory().train()
    before = tensors_digest(dense.state_dict())
    restored = load_pruned(directory, dense)
    assert tensors_digest(restored.state_dict()) == tensors_digest(small.state_dict())
    assert torch.equal(restored(*IMAGES), small(*IMAGES))
    assert not restored.training
    assert (tensors_digest(dense.state_dict()), dense.training) == (before, True)


def test_tied_parameters_stay_tied(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(6, 6, bias=False)
            self.again = nn.Linear(6, 6, bias=False)
            self.again.weight = self.inner.weight
            self.hidden = nn.Linear(6, 8)
            self.out = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.out(self.hidden(self.again(self.inner(x)).relu()).relu())
            return result

    model, inputs = Tied().eval(), (torch.randn(2, 6),)
    plan = _plan(model, inputs)
    small = prune(model, plan)
    save_pruned(tmp_path, small, plan)
    restored = load_pruned(tmp_path, Tied())
    inner, again = restored.get_submodule("inner"), restored.get_submodule("again")
    assert inner.weight is again.weight
    assert torch.equal(restored(*inputs), small(*inputs))
    assert restored.get_parameter("out.weight").shape == (3, 4)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: resnet8(num_classes=7, in_channels=1, width=4), r"of shape \[7.*expected of shape \[10"),
        (lambda: resnet8(num_classes=10, in_channels=1, width=8), "of another model"),
        (lambda: resnet20(num_classes=10, in_channels=1), "same factory"),
        (lambda: nn.Linear(2, 2), "is absent, expected of shape"),
        (lambda: factory().double(), r"convert the model given with \.to\(torch\.float32\)"),
    ],
)
def test_another_factory_is_refused(saved: tuple[Path, nn.Module], other: Callable[[], nn.Module], said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        load_pruned(saved[0], other())


def _first(content: dict[str, Any]) -> tuple[list[int], dict[str, list[int]], str]:
    axes = content["slices"]["bn1.weight"]
    return axes["0"], axes, "bn1.weight"


def _out_of_range(content: dict[str, Any]) -> None:
    _first(content)[0][-1] = 99


def _negative(content: dict[str, Any]) -> None:
    _first(content)[0][0] = -1


def _twice(content: dict[str, Any]) -> None:
    kept = _first(content)[0]
    kept[-1] = kept[0]


def _empty(content: dict[str, Any]) -> None:
    _first(content)[0].clear()


def _no_axis(content: dict[str, Any]) -> None:
    kept, axes, _ = _first(content)
    axes["5"] = kept


def _no_parameter(content: dict[str, Any]) -> None:
    content["slices"]["nowhere"] = {"0": [0]}


def _text(content: dict[str, Any]) -> None:
    _first(content)[0][0] = "__import__('os')"  # type: ignore[call-overload]  # what must be refused


def _fraction(content: dict[str, Any]) -> None:
    _first(content)[0][0] = 0.5  # type: ignore[call-overload]  # what must be refused


def _missing(content: dict[str, Any]) -> None:
    del content["slices"]


def _fewer(content: dict[str, Any]) -> None:
    _first(content)[0].pop()


def _size_of_no_module(content: dict[str, Any]) -> None:
    content["sizes"] = {"nowhere": {"width": 3}}


def _size_of_text(content: dict[str, Any]) -> None:
    content["sizes"] = {"fc": {"in_features": "3"}}


def _size_that_is_none(content: dict[str, Any]) -> None:
    content["sizes"] = {"fc": {"training": 3}}  # True is no whole number


def _size_of_nothing(content: dict[str, Any]) -> None:
    content["sizes"] = {"fc": {"in_features": []}}


def _newer(content: dict[str, Any]) -> None:
    content["format"] = FORMAT + 1


@pytest.mark.parametrize(
    "change",
    [
        _out_of_range, _negative, _twice, _empty, _no_axis, _no_parameter, _text, _fraction, _missing, _fewer, _newer,
            _size_of_no_module, _size_of_text, _size_that_is_none, _size_of_nothing,
    ],
)  # fmt: skip
def test_a_forged_plan_is_refused_even_with_a_right_checksum(
    saved: tuple[Path, nn.Module], change: Callable[[dict[str, Any]], None]
) -> None:
    _rewrite(saved[0], change)
    with pytest.raises(CheckpointError):
        load_pruned(saved[0], factory())


def test_other_channels_of_the_same_number_are_noticed(saved: tuple[Path, nn.Module]) -> None:
    content = json.loads((saved[0] / PLAN).read_text())
    _first(content)[0][0] = 0
    (saved[0] / PLAN).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="changed after export"):
        load_pruned(saved[0], factory())


def test_damaged_and_foreign_files_are_refused(saved: tuple[Path, nn.Module], tmp_path: Path) -> None:
    directory, small = saved
    lazy, metadata = load_tensors(directory / WEIGHTS)
    weights = {name: tensor.clone() for name, tensor in lazy.items()}  # they lie in the file, which is about to change
    whole = (directory / WEIGHTS).read_bytes()
    damages: list[tuple[Callable[[], object], str]] = [
        (lambda: (directory / WEIGHTS).write_bytes(whole[:-100]), "not a complete safetensors file"),
        (lambda: (directory / WEIGHTS).write_bytes(b""), "not a complete safetensors file"),
        (lambda: (directory / WEIGHTS).unlink(), "missing"),
        (lambda: save_tensors(directory / WEIGHTS, weights, {}), "was not saved together with"),
        (
            lambda: save_tensors(
                directory / WEIGHTS, {n: t for n, t in weights.items() if n != "conv1.weight"}, metadata
            ),
            "'conv1.weight' is absent",
        ),
        (lambda: save_tensors(directory / WEIGHTS, {**weights, "more": weights["bn1.bias"]}, metadata), "'more'"),
    ]
    for damage, said in damages:
        damage()
        with pytest.raises(CheckpointError, match=said):
            load_pruned(directory, factory())
    (directory / WEIGHTS).write_bytes(whole)
    assert tensors_digest(load_pruned(directory, factory()).state_dict()) == tensors_digest(small.state_dict())
    for text in ("", "[]", "{}", "{'a': 1}"):
        (directory / PLAN).write_text(text)
        with pytest.raises(CheckpointError, match=PLAN):
            load_pruned(directory, factory())
    (directory / PLAN).unlink()
    with pytest.raises(CheckpointError, match=r"cannot be read|missing"):
        load_pruned(directory, factory())


def test_a_model_of_another_plan_is_not_saved(tmp_path: Path, tiny_resnet: nn.Module) -> None:
    with pytest.raises(CheckpointError, match="not made by this plan"):
        save_pruned(tmp_path / "x", tiny_resnet, _plan(tiny_resnet))
    assert not (tmp_path / "x").exists()


def test_random_bytes_of_one_seed_restore_equally(tmp_path: Path) -> None:
    """Restoring does not depend on the weights the factory starts with."""
    with seeded("one"):
        model = factory().eval()
    plan = _plan(model)
    save_pruned(tmp_path, prune(model, plan), plan)
    digests = set()
    for seed in ("two", "three"):
        with seeded(seed):
            digests.add(tensors_digest(load_pruned(tmp_path, factory()).state_dict()))
    assert len(digests) == 1
