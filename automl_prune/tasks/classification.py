"""Image classification: one final task over any source of labelled images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar, final

import torch
import torch.nn.functional as F

from automl_prune.errors import DataError
from automl_prune.seeding import generator
from automl_prune.tasks.base import Batches, Metric, Preprocessing, Score, Split

ACCURACY = Metric("accuracy", higher_is_better=True, percent=True)
TEMPERATURE = 4.0
"""Softens both distributions in distillation, as in Hinton et al. 2015 (arXiv:1503.02531), section 2."""


class LabelledImages(Protocol):
    """Where a classification task takes its images from; batches are pairs (images, labels).

    Images have shape (batch, channels, height, width), are preprocessed, float32; labels are int64, (batch,).
    """

    @property
    def preprocessing(self) -> Preprocessing:
        """How raw images become inputs, and the names of the classes."""
        ...

    @property
    def digest(self) -> str:
        """Identity of the images, the splits and the preprocessing."""
        ...

    def batches(self, split: Split, *, shuffle: int | None, augment: bool) -> Batches:
        """See ``Task.batches``."""
        ...


@final
@dataclass(frozen=True)
class Classification:
    """A ``Task``: cross entropy, top-1 accuracy.

    Attributes:
        name: For tables and file names.
        images: The data.
        label_smoothing: Share of the target spread evenly over all classes, in [0, 1).
    """

    name: str
    images: LabelledImages
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise DataError(f"label_smoothing is {self.label_smoothing}; choose a number in [0, 1)")

    metric: ClassVar[Metric] = ACCURACY

    @property
    def preprocessing(self) -> Preprocessing:
        """How raw images become inputs, and the names of the classes."""
        return self.images.preprocessing

    @property
    def digest(self) -> str:
        """Identity of the images, the splits and the preprocessing."""
        return self.images.digest

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """The first two validation images, shape (2, channels, height, width)."""
        images, _ = next(iter(self.images.batches("val", shuffle=None, augment=False)))
        if len(images) == 1:
            images = images.repeat(2, 1, 1, 1)
        return (images[:2].clone(),)

    def batches(self, split: Split, *, shuffle: int | None = None, augment: bool = False) -> Batches:
        """Pairs (images, labels); see ``Task.batches``."""
        return self.images.batches(split, shuffle=shuffle, augment=augment)

    def inputs(self, batch: Any) -> tuple[torch.Tensor, ...]:
        """The images."""
        return (batch[0],)

    def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
        """Mean cross entropy of logits (batch, classes)."""
        return F.cross_entropy(outputs, batch[1], label_smoothing=self.label_smoothing)

    def distillation_loss(self, outputs: Any, teacher_outputs: Any) -> torch.Tensor:
        """T^2 KL(teacher || student) of softened logits, Hinton et al. 2015 (arXiv:1503.02531), section 2."""
        student = F.log_softmax(outputs / TEMPERATURE, dim=1)
        teacher = F.log_softmax(teacher_outputs / TEMPERATURE, dim=1)
        return TEMPERATURE**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    def score(self, predictions: Iterable[tuple[Any, Any]]) -> Score:
        """Top-1 accuracy with its binomial standard error, and which samples were right."""
        right = [logits.argmax(dim=1) == labels for logits, (_, labels) in predictions]
        if not any(len(batch) for batch in right):
            raise DataError(f"{self.name}: there is nothing to score; the split holds no samples")
        return Score.of_hits(torch.cat(right))


class Labelled(Protocol):
    """Samples with the number of their class, wherever the samples are."""

    @property
    def labels(self) -> torch.Tensor:
        """Shape (samples,)."""
        ...

    def take(self, indices: torch.Tensor) -> Self:
        """Some of the samples."""
        ...


SamplesT = TypeVar("SamplesT", bound=Labelled)


def held_out(training: SamplesT, test: SamplesT, validation: int) -> dict[Split, SamplesT]:
    """The three splits of a set that comes in two: a stratified part of the training samples validates.

    Raises:
        DataError: There are not so many training samples.
    """
    kept, held = stratified_holdout(training.labels, validation, seed=0)
    return {"train": training.take(kept), "val": training.take(held), "test": test}


def stratified_holdout(labels: torch.Tensor, count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Split indices so that the held-out part has every class in its share of the whole.

    Args:
        labels: Integer classes, shape (samples,).
        count: Samples to hold out; shares are rounded by largest remainder, so exactly this many.
        seed: Chooses which samples of a class are held out.

    Returns:
        Indices (kept, held out), both ascending, disjoint, together every sample.

    Raises:
        DataError: ``count`` leaves nothing on one side.
    """
    if not 0 < count < len(labels):
        raise DataError(
            f"cannot hold out {count} of {len(labels)} samples for validation; choose between 1 and {len(labels) - 1}"
        )
    classes, sizes = torch.unique(labels, return_counts=True)
    floors = sizes * count // len(labels)
    remainders = sizes * count % len(labels)
    for position in torch.argsort(remainders, descending=True, stable=True)[: count - int(floors.sum())]:
        floors[position] += 1
    held = torch.zeros(len(labels), dtype=torch.bool)
    random = generator("stratified_holdout", seed)
    for label, take in zip(classes.tolist(), floors.tolist(), strict=True):
        members = torch.nonzero(labels == label).flatten()
        held[members[torch.randperm(len(members), generator=random)[:take]]] = True
    return torch.nonzero(~held).flatten(), torch.nonzero(held).flatten()
