from __future__ import annotations

import pytest
import torch

from automl_prune.errors import ConfigError
from automl_prune.tasks import Task
from automl_prune.tasks.bounded import BoundedValidation


@pytest.mark.parametrize(("samples", "expected"), [(1, 64), (64, 64), (65, 128), (128, 128), (5000, 128)])
def test_validation_ends_after_the_bound_rounded_up_to_batches(digits_task: Task, samples: int, expected: int) -> None:
    batches = BoundedValidation(digits_task, samples).batches("val")
    images = [images for images, _ in batches]
    assert sum(len(part) for part in images) == expected
    assert len(images) == len(batches)
    assert all(torch.equal(a, b[0]) for a, b in zip(images, batches, strict=True)), "the same ones every time"


def test_samples_are_drawn_not_the_first_ones(digits_task: Task) -> None:
    (bounded, labels), (first, _) = (
        next(iter(task.batches("val"))) for task in (BoundedValidation(digits_task, 64), digits_task)
    )
    assert not torch.equal(bounded, first)
    assert len(labels.unique()) == 10
    everything = {image.numpy().tobytes() for images, _ in digits_task.batches("val") for image in images}
    assert {image.numpy().tobytes() for image in bounded} <= everything


def test_everything_else_is_the_task_s_and_the_identity_tells_them_apart(digits_task: Task) -> None:
    bounded = BoundedValidation(digits_task, 64)
    for split in ("train", "test"):
        mine, whole = (list(task.batches(split, shuffle=3)) for task in (bounded, digits_task))
        assert all(torch.equal(a[0], b[0]) for a, b in zip(mine, whole, strict=True))
    assert (bounded.name, bounded.metric) == (digits_task.name, digits_task.metric)
    assert len({bounded.digest, digits_task.digest, BoundedValidation(digits_task, 128).digest}) == 3
    with pytest.raises(ConfigError, match="at least 1 sample, got 0"):
        BoundedValidation(digits_task, 0)
