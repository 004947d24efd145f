from __future__ import annotations

from typing import Any

import pytest
import torch

from automl_prune.errors import DataError
from automl_prune.seeding import generator
from automl_prune.tasks.base import Split
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import Augmentation, LabelledTensors, TensorImages


def make(train: int = 50, batch_size: int = 16, channels: int = 3, **changes: Any) -> TensorImages:
    random = torch.Generator().manual_seed(1)
    sizes: dict[Split, int] = {"train": train, "val": 7, "test": 9}
    splits: dict[Split, LabelledTensors] = {
        name: LabelledTensors(
            torch.randint(256, (size, channels, 6, 5), generator=random, dtype=torch.uint8),
            torch.randint(3, (size,), generator=random),
        )
        for name, size in sizes.items()
    }
    settings = {"classes": ("a", "b", "c"), "batch_size": batch_size, "augmentation": Augmentation(1, flip=True)}
    return TensorImages.of(splits, **{**settings, **changes})


def flat(batches: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_batches_in_order_are_the_normalised_split() -> None:
    data = make()
    images, labels = flat(data.batches("train", shuffle=None, augment=False))
    raw = data.splits["train"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (data.preprocessing.mean, data.preprocessing.std))
    torch.testing.assert_close(images, (raw.images / 255 - mean) / std)
    assert torch.equal(labels, raw.labels)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.std((0, 2, 3), unbiased=False), torch.ones(3), atol=1e-4, rtol=0)


@pytest.mark.parametrize("augment", [False, True])
def test_shuffled_batches_repeat_with_the_seed_and_differ_without(augment: bool) -> None:
    data = make()
    batches = data.batches("train", shuffle=5, augment=augment)
    assert len(batches) == len(list(batches)) == 3  # 50 images, 16 each, the rest left out
    first, again = flat(batches), flat(batches)
    same, other = (
        flat(data.batches("train", shuffle=5, augment=augment)),
        flat(data.batches("train", shuffle=6, augment=augment)),
    )
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[0], same[0])
    assert torch.equal(first[1], same[1])
    assert not torch.equal(first[0], other[0])


def test_shuffling_draws_without_replacement_and_a_small_split_is_one_batch() -> None:
    data = make(train=12)
    images, _ = flat(data.batches("train", shuffle=0, augment=False))
    ordered, _ = flat(data.batches("train", shuffle=None, augment=False))
    assert len(images) == 12
    assert sorted(image.sum().item() for image in images) == sorted(image.sum().item() for image in ordered)


def test_global_random_state_is_neither_read_nor_changed() -> None:
    before = torch.random.get_rng_state()
    first, _ = flat(make().batches("train", shuffle=1, augment=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(flat(make().batches("train", shuffle=1, augment=True))[0], first)


def test_augmentation_gives_crops_of_the_padded_image_and_its_mirror() -> None:
    images = torch.arange(1, 25, dtype=torch.uint8).reshape(1, 2, 3, 4)
    padded = torch.nn.functional.pad(images[0], (1, 1, 1, 1))
    possible = {
        tuple(crop.flatten().tolist())
        for top in range(3)
        for left in range(3)
        for crop in (
            padded[:, top : top + 3, left : left + 4],
            padded[:, top : top + 3, left : left + 4].flip(2),
        )
    }
    many = Augmentation(padding=1, flip=True)(images.repeat(500, 1, 1, 1), generator(0))
    assert {tuple(image.flatten().tolist()) for image in many} == possible
    assert torch.equal(Augmentation()(images, generator(0)), images)


def test_digest_is_of_the_data_not_of_how_they_are_batched() -> None:
    digest = make().digest
    assert make(batch_size=4, augmentation=Augmentation()).digest == digest
    assert make(train=51).digest != digest
    assert make(classes=("a", "b", "d")).digest != digest
    assert make(highest=256.0).digest != digest


def test_wrong_options_are_told() -> None:
    with pytest.raises(DataError, match="batch_size is 0"):
        make(batch_size=0)
    with pytest.raises(DataError, match="train split holds no images"):
        make(train=0)
    with pytest.raises(DataError, match="go from 0 to 2, but there are 2 classes"):
        make(classes=("a", "b"))
    with pytest.raises(DataError, match="crop_padding is -1"):
        Augmentation(padding=-1)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    black = LabelledTensors(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    data = TensorImages.of(
        {"train": black, "val": black, "test": black}, classes=("x",), batch_size=4, augmentation=Augmentation()
    )
    images, _ = flat(data.batches("train", shuffle=None, augment=False))
    assert torch.equal(images, torch.zeros(4, 1, 2, 2))


def test_one_validation_image_still_gives_two_example_inputs() -> None:
    one = make().splits["val"].take(torch.tensor([0]))
    splits: dict[Split, LabelledTensors] = {"train": one, "val": one, "test": one}
    images = TensorImages.of(splits, classes=("a", "b", "c"), batch_size=8, augmentation=Augmentation())
    assert Classification("one", images).example_inputs[0].shape == (2, 3, 6, 5)
