"""A task that is no classification: two numbers per image, batches are dictionaries, lower scores are better."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F

from automl_prune.seeding import generator
from automl_prune.tasks.base import Batches, Metric, Preprocessing, Score, Split

SIZES: dict[Split, int] = {"train": 256, "val": 96, "test": 96}


@dataclass(frozen=True)
class RegressionTask:
    """Predict the mean and the largest value of an 8x8 image of noise; models take (batch, 1, 8, 8)."""

    batch_size: int = 32

    name: ClassVar[str] = "regression"
    metric: ClassVar[Metric] = Metric("rmse", higher_is_better=False)
    preprocessing: ClassVar[Preprocessing | None] = None
    digest: ClassVar[str] = "5eed"

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        return (next(iter(self.batches("val")))["image"][:2],)

    def batches(self, split: Split, *, shuffle: int | None = None, augment: bool = False) -> Batches:
        images = torch.randn(SIZES[split], 1, 8, 8, generator=generator("regression", split))
        flat = images.flatten(1)
        targets = torch.stack([flat.mean(1) * 8, flat.amax(1)], dim=1)
        order = torch.arange(len(images))
        if shuffle is not None:
            order = torch.randperm(len(images), generator=generator(shuffle))
        chunks = [chunk for chunk in order.split(self.batch_size) if shuffle is None or len(chunk) == self.batch_size]
        return [{"image": images[chunk], "target": targets[chunk]} for chunk in chunks]

    def inputs(self, batch: Any) -> tuple[torch.Tensor, ...]:
        return (batch["image"],)

    def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
        return F.mse_loss(outputs, batch["target"])

    def distillation_loss(self, outputs: Any, teacher_outputs: Any) -> torch.Tensor:
        return F.mse_loss(outputs, teacher_outputs)

    def score(self, predictions: Iterable[tuple[Any, Any]]) -> Score:
        total, samples = 0.0, 0
        for outputs, batch in predictions:
            total += float(((outputs - batch["target"]) ** 2).mean(dim=1).sum())
            samples += len(outputs)
        return Score(math.sqrt(total / samples), samples)
