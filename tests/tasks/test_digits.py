from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from automl_prune.tasks import tasks
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import TensorImages


def test_splits_hold_every_digit_once_and_in_proportion() -> None:
    task = tasks["digits"]()
    assert isinstance(task, Classification)
    assert isinstance(task.images, TensorImages)
    splits = task.images.splits
    assert {name: len(split) for name, split in splits.items()} == {"train": 1137, "val": 300, "test": 360}
    every = torch.cat([split.images for split in splits.values()]).flatten(1)
    original = torch.tensor(load_digits().data, dtype=torch.uint8)
    assert sorted(map(tuple, every.tolist())) == sorted(map(tuple, original.tolist()))
    share = torch.bincount(torch.tensor(load_digits().target)) / 1797
    for split in splits.values():
        expected = share * len(split)
        assert (torch.bincount(split.labels) - expected).abs().max() < 2


def test_preprocessing_reproduces_the_inputs() -> None:
    task = tasks["digits"]()
    assert isinstance(task, Classification)
    assert isinstance(task.images, TensorImages)
    recipe = task.preprocessing
    assert (recipe.height, recipe.width, recipe.color, recipe.value_range) == (8, 8, "gray", (0.0, 16.0))
    raw = task.images.splits["val"].images[:2].numpy()
    by_hand = (raw / recipe.value_range[1] - recipe.mean[0]) / recipe.std[0]
    torch.testing.assert_close(task.example_inputs[0], torch.tensor(by_hand, dtype=torch.float32))
    assert tasks["digits"]().digest == task.digest
    assert tasks["digits"](validation=200).digest != task.digest
