"""Fixtures of every room's tests: a small classification task, a task of another kind, a tiny network."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import nn

from automl_prune.models import resnet8
from automl_prune.seeding import seeded
from automl_prune.tasks import Task, tasks
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import TensorImages

# A slow machine is no failure: nothing here asserts on time. In CI every run tries the same examples, so that what
# lands does not hang on a draw; elsewhere each run looks further.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def digits_task() -> Classification:
    """Digits with 512 training, 128 validation and 128 test images of shape (1, 8, 8), batches of 64."""
    full = tasks["digits"]()
    assert isinstance(full, Classification)
    assert isinstance(full.images, TensorImages)
    sizes = {"train": 512, "val": 128, "test": 128}
    images = TensorImages.of(
        {name: split.take(torch.arange(sizes[name])) for name, split in full.images.splits.items()},
        classes=full.images.preprocessing.classes,
        batch_size=64,
        augmentation=full.images.augmentation,
        highest=full.images.preprocessing.value_range[1],
    )
    return Classification("digits", images)


@pytest.fixture(scope="session")
def regression_task() -> Task:
    """Two numbers per image of shape (1, 8, 8), scored by RMSE; see tests/tasks/regression_task.py."""
    name = "automl_prune_test_regression_task"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "tasks" / "regression_task.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    task: Task = sys.modules[name].RegressionTask()
    return task


@pytest.fixture
def tiny_resnet() -> nn.Module:
    """A fresh, untrained ResNet-8 of width 4 for one-channel images and 10 classes; the same weights every time."""
    with seeded("tiny_resnet"):
        return resnet8(num_classes=10, in_channels=1, width=4)
