"""A task whose validation split is cut short, for scores that only have to tell large differences apart."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, final

import torch

from automl_prune.errors import ConfigError
from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Batch, Batches, Metric, Preprocessing, Score, Split, Task

_ORDER = derive_seed("bounded validation")


@final
@dataclass(frozen=True)
class BoundedValidation:
    """A ``Task`` like another one, with fewer validation samples; the other splits are as they were.

    The samples are drawn once and for all, in a random order, because many data sets are sorted by class.

    Attributes:
        task: The whole task.
        samples: Validation samples to use, rounded up to whole batches; all of them where there are fewer.
    """

    task: Task
    samples: int

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ConfigError(f"validation needs at least 1 sample, got {self.samples}")

    @property
    def name(self) -> str:
        """The task's."""
        return self.task.name

    @property
    def metric(self) -> Metric:
        """The task's."""
        return self.task.metric

    @property
    def preprocessing(self) -> Preprocessing | None:
        """The task's."""
        return self.task.preprocessing

    @property
    def digest(self) -> str:
        """Identity of the data and of the bound."""
        return hashlib.sha256(f"{self.task.digest} {self.samples}".encode()).hexdigest()

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """The task's."""
        return self.task.example_inputs

    def batches(self, split: Split, *, shuffle: int | None = None, augment: bool = False) -> Batches:
        """The task's; those of the validation split end after the bound."""
        if split != "val":
            return self.task.batches(split, shuffle=shuffle, augment=augment)
        whole = self.task.batches("val", shuffle=shuffle, augment=augment)
        drawn = self.task.batches("val", shuffle=_ORDER if shuffle is None else shuffle, augment=augment)
        size = len(self.task.inputs(next(iter(whole)))[0])
        count = math.ceil(self.samples / size)
        return whole if count >= len(whole) else _First(drawn, count)

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The task's."""
        return self.task.inputs(batch)

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """The task's."""
        return self.task.loss(outputs, batch)

    def distillation_loss(self, outputs: Any, teacher_outputs: Any) -> torch.Tensor:
        """The task's."""
        return self.task.distillation_loss(outputs, teacher_outputs)

    def score(self, predictions: Iterable[tuple[Any, Batch]]) -> Score:
        """The task's."""
        return self.task.score(predictions)


@dataclass(frozen=True, slots=True)
class _First:
    """The first batches of others."""

    batches: Batches
    count: int

    def __len__(self) -> int:
        return min(self.count, len(self.batches))

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self.batches), self.count)


def _proof(task: BoundedValidation) -> Task:  # the type checker proves that it is one
    return task
