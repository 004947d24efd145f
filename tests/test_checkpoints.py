"""Checkpoints of trainings that do not belong, or were damaged, are refused before they change anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import CheckpointError
from automl_prune.files import save_tensors, tensors_digest


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
