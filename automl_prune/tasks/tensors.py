"""Images that fit into memory, as bytes; augmentation and normalisation work on whole batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import final

import torch

from automl_prune.errors import DataError
from automl_prune.files import tensors_digest
from automl_prune.seeding import generator
from automl_prune.tasks.base import Batches, Preprocessing, Split


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        padding: Black pixels added on every side before a random crop back to size; 0 for none.
        flip: Whether images are mirrored left to right with probability 1/2.
    """

    padding: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise DataError(f"crop_padding is {self.padding}; choose 0 or more pixels")

    def __call__(self, images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """Augmented copies of images, shape (batch, channels, height, width), drawing from ``random``."""
        batch, channels, height, width = images.shape
        rows = torch.arange(height).expand(batch, height)
        columns = torch.arange(width).expand(batch, width)
        if self.flip:
            mirrored = torch.rand(batch, 1, generator=random) < 0.5
            columns = torch.where(mirrored, width - 1 - columns, columns)
        if self.padding:
            images = torch.nn.functional.pad(images, (self.padding,) * 4)
            rows = rows + torch.randint(2 * self.padding + 1, (batch, 1), generator=random)
            columns = columns + torch.randint(2 * self.padding + 1, (batch, 1), generator=random)
        sample = torch.arange(batch).view(-1, 1, 1, 1)
        channel = torch.arange(channels).view(1, -1, 1, 1)
        return images[sample, channel, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True, slots=True)
class LabelledTensors:
    """One split.

    Attributes:
        images: uint8, shape (samples, channels, height, width).
        labels: int64, shape (samples,).
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: torch.Tensor) -> LabelledTensors:
        """The samples at ``indices``, copied."""
        return LabelledTensors(self.images[indices], self.labels[indices])


@final
@dataclass(frozen=True)
class TensorImages:
    """Labelled images in memory (a ``LabelledImages``).

    Attributes:
        splits: By name.
        preprocessing: Applied to every batch.
        batch_size: Samples per batch.
        augmentation: Applied to batches asked for with ``augment=True``.
        digest: Identity of all of that but batch size and augmentation.
    """

    splits: Mapping[Split, LabelledTensors]
    preprocessing: Preprocessing
    batch_size: int
    augmentation: Augmentation
    digest: str

    @classmethod
    def of(
        cls,
        splits: Mapping[Split, LabelledTensors],
        *,
        classes: tuple[str, ...],
        batch_size: int,
        augmentation: Augmentation,
        highest: float = 255.0,
    ) -> TensorImages:
        """Images with mean and standard deviation per channel taken from the training split.

        Args:
            splits: All three.
            classes: Names in the order of the labels.
            batch_size: Samples per batch, at least 1.
            augmentation: For training.
            highest: Upper end of the range of raw values; the lower is 0.

        Raises:
            DataError: A split is empty, a label has no class, or the batch size is not positive.
        """
        if type(batch_size) is not int or batch_size < 1:
            raise DataError(f"batch_size is {batch_size!r}; choose a whole number, at least 1")
        for name, split in splits.items():
            if not len(split):
                raise DataError(f"the {name} split holds no images; give more data or hold out fewer")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(classes):
                raise DataError(
                    f"labels of the {name} split go from {low} to {high}, but there are {len(classes)} classes, 0 "
                    f"to {len(classes) - 1}; correct the labels or data.classes"
                )
        mean, std = _moments(splits["train"].images, highest)
        _, channels, height, width = splits["train"].images.shape
        preprocessing = Preprocessing(
            layout="NCHW",
            color="gray" if channels == 1 else "RGB",
            height=height,
            width=width,
            value_range=(0.0, highest),
            mean=mean,
            std=std,
            classes=classes,
        )
        content = {f"{name}.images": split.images for name, split in splits.items()}
        content |= {f"{name}.labels": split.labels for name, split in splits.items()}
        identity = tensors_digest(content) + json.dumps(preprocessing.to_json())
        digest = hashlib.sha256(identity.encode()).hexdigest()
        return cls(dict(splits), preprocessing, batch_size, augmentation, digest)

    def batches(self, split: Split, *, shuffle: int | None, augment: bool) -> Batches:
        """See ``Task.batches``; a split smaller than one batch is one batch even when shuffled."""
        augmentation = self.augmentation if augment else Augmentation()
        return _TensorBatches(self, self.splits[split], shuffle, augmentation)

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Raw images as the model's input, float32."""
        mean = torch.tensor(self.preprocessing.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.preprocessing.std).view(1, -1, 1, 1)
        return images.float().div_(self.preprocessing.value_range[1]).sub_(mean).div_(std)


@dataclass(frozen=True, slots=True)
class _TensorBatches:
    """The batches of one split; every iteration starts the same random stream again."""

    data: TensorImages
    split: LabelledTensors
    shuffle: int | None
    augmentation: Augmentation

    def __len__(self) -> int:
        whole, rest = divmod(len(self.split), self.data.batch_size)
        return whole + int(rest > 0 and (self.shuffle is None or whole == 0))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        random = generator("batches", self.shuffle)
        order = torch.arange(len(self.split))
        if self.shuffle is not None:
            order = torch.randperm(len(self.split), generator=random)
        for number in range(len(self)):
            chosen = order[number * self.data.batch_size : (number + 1) * self.data.batch_size]
            batch = self.split.take(chosen)
            yield self.data.normalise(self.augmentation(batch.images, random)), batch.labels


def _moments(images: torch.Tensor, highest: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of bytes divided by ``highest``, exact by counting values."""
    means, stds = [], []
    values = torch.arange(256, dtype=torch.float64) / highest
    for channel in range(images.shape[1]):
        counts = torch.bincount(images[:, channel].reshape(-1), minlength=256).double()
        mean = float((counts * values).sum() / counts.sum())
        variance = float((counts * (values - mean) ** 2).sum() / counts.sum())
        means.append(round(mean, 6))
        stds.append(round(variance**0.5, 6) or 1.0)
    return tuple(means), tuple(stds)
