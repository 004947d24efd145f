"""A run directory keeps the dense model it began with, and never swaps it in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from automl_prune.config import Config
from automl_prune.dense import load_or_train
from automl_prune.errors import CheckpointError, DataError, ModelError
from automl_prune.files import save_tensors, tensors_digest
from automl_prune.view import Silent

DIGITS = Path(__file__).parents[1] / "experiments" / "digits" / "config.yaml"


def load(baseline: Path, *overrides: str) -> str:
    config = Config.load(DIGITS, ["device=cpu", "training.epochs=1", *overrides])
    return tensors_digest(load_or_train(config, config.build_task(), baseline, Silent()).state_dict())


def test_other_weights_than_the_run_directory_has_are_refused(tmp_path: Path) -> None:
    baseline, given = tmp_path / "run" / "baseline.safetensors", tmp_path / "given.safetensors"
    weights = Config.load(DIGITS).build_model().state_dict()
    save_tensors(given, weights)
    first = load(baseline, f"model.weights={given}")
    assert load(baseline, f"model.weights={given}") == first
    shutil.copy(given, tmp_path / "same.safetensors")
    assert load(baseline, f"model.weights={tmp_path / 'same.safetensors'}") == first, "the name does not matter"
    save_tensors(given, {n: t + 1 if t.is_floating_point() else t for n, t in weights.items()})
    with pytest.raises(CheckpointError, match=r"holds another model than model\.weights .*given.*--run-dir"):
        load(baseline, f"model.weights={given}")
    given.unlink()
    assert load(baseline, f"model.weights={given}") == first, "a copied run directory has all it needs"


def test_another_training_than_that_of_the_run_directory_is_refused(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.safetensors"
    first = load(baseline)
    assert load(baseline) == first
    with pytest.raises(CheckpointError, match=r"trained with another training than the configuration.*--run-dir"):
        load(baseline, "training.epochs=2")
    with pytest.raises(CheckpointError, match="another seed than"):
        load(baseline, "search.seed=7")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.args.in_channels=3", r"inputs of shape \(64, 1, 8, 8\)"),
        ("model.args.num_classes=5", "Target [0-9]"),
    ],
)
def test_a_model_that_does_not_fit_its_data_is_told_before_training(override: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"cannot be trained on these data.*{said}.*check model\.args"):
        load(tmp_path / "baseline.safetensors", override)
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_batch_size_that_is_no_whole_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"batch_size is 64\.5; choose a whole number"):
        load(tmp_path / "baseline.safetensors", "data.batch_size=64.5")
    assert torch.is_grad_enabled()
