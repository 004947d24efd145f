"""Weights and checkpoints that do not belong, or were damaged, are refused before they change anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint, load_weights
from automl_prune.errors import CheckpointError
from automl_prune.files import save_tensors, tensors_digest
from automl_prune.models import resnet8


def made(path: Path) -> tuple[nn.Module, torch.optim.Optimizer, Checkpoint]:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer, Checkpoint(path, {"seed": 1, "recipe": {"steps": (1, 2)}})


def test_state_comes_back(tmp_path: Path) -> None:
    model, optimizer, checkpoint = made(tmp_path / "c")
    assert checkpoint.restore(model, optimizer) is None
    checkpoint.save(model, optimizer, {"steps": 3, "loss": 0.1})
    other, its, _ = made(tmp_path / "c")
    assert checkpoint.restore(other, its) == {"steps": 3, "loss": 0.1}
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert torch.equal(optimizer.state[mine]["momentum_buffer"], its.state[theirs]["momentum_buffer"])


@pytest.mark.parametrize(
    ("identity", "differs"), [({"seed": 2}, "seed and recipe"), ({"seed": 1, "recipe": {"steps": [1, 3]}}, "recipe")]
)
def test_another_training_is_refused(identity: dict[str, Any], differs: str, tmp_path: Path) -> None:
    model, optimizer, checkpoint = made(tmp_path / "c")
    Checkpoint(checkpoint.path, identity).save(model, optimizer, {})
    before = tensors_digest(model.state_dict())
    with pytest.raises(CheckpointError, match=f"different {differs};"):
        checkpoint.restore(model, optimizer)
    assert tensors_digest(model.state_dict()) == before


def test_damaged_values_and_other_files_are_refused(tmp_path: Path) -> None:
    model, optimizer, checkpoint = made(tmp_path / "c")
    checkpoint.save(model, optimizer, {})
    content = bytearray(checkpoint.path.read_bytes())
    content[-3] ^= 1  # one bit of one weight
    checkpoint.path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged: its values are not those"):
        checkpoint.restore(model, optimizer)
    save_tensors(checkpoint.path, model.state_dict())
    with pytest.raises(CheckpointError, match="is no training checkpoint"):
        checkpoint.restore(model, optimizer)
    Checkpoint(checkpoint.path, checkpoint.identity).save(nn.Linear(2, 3), optimizer, {})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        checkpoint.restore(model, optimizer)


def model() -> nn.Module:
    return resnet8(num_classes=10, in_channels=1, width=4)


def test_weights_are_loaded_with_their_metadata(tmp_path: Path) -> None:
    source, target = model(), model()
    save_tensors(tmp_path / "w.safetensors", source.state_dict(), {"seed": "7"})
    assert load_weights(target, tmp_path / "w.safetensors") == {"seed": "7"}
    assert tensors_digest(target.state_dict()) == tensors_digest(source.state_dict())


def test_weights_that_do_not_fit_are_listed_and_change_nothing(tmp_path: Path) -> None:
    source, target = model(), model()
    tensors = dict(source.state_dict())
    first, second, *_ = [name for name, tensor in tensors.items() if tensor.ndim == 4]
    del tensors[first]
    tensors[second] = tensors[second][:1]
    tensors["extra"] = torch.zeros(2)
    save_tensors(tmp_path / "w.safetensors", tensors)
    before = tensors_digest(target.state_dict())
    with pytest.raises(CheckpointError) as caught:
        load_weights(target, tmp_path / "w.safetensors")
    message = str(caught.value)
    assert f"{first!r} is missing" in message
    assert "'extra' is not in the model" in message
    assert f"{second!r} has shape (1, " in message
    assert "check model.factory and model.args" in message
    assert tensors_digest(target.state_dict()) == before


def test_long_lists_of_misfits_are_cut(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", {"extra": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"and \d+ more"):
        load_weights(model(), tmp_path / "w.safetensors")


def test_weights_with_nan_or_cut_short_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = dict(model().state_dict())
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    save_tensors(path, {**tensors, name: torch.full_like(tensors[name], float("nan"))})
    with pytest.raises(CheckpointError, match=f"{name}.*NaN or infinity"):
        load_weights(model(), path)
    save_tensors(path, tensors)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_weights(model(), path)
    with pytest.raises(CheckpointError, match="missing"):
        load_weights(model(), tmp_path / "none.safetensors")
