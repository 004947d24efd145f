"""Who takes part in a fine-tuning: this process alone, or several that each have a part of every batch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from automl_prune.tasks.base import Batch


class Ranks(Protocol):
    """The processes of one training, as one of them sees them. All make the same calls in the same order."""

    first: bool
    """Whether this is the process that writes checkpoints."""

    def join(self, model: nn.Module) -> nn.Module:
        """The model to train through: it has the same parameters, and their gradients are averaged over all ranks."""
        ...

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """This rank's part of a batch, and the weight of its mean loss: the mean over ranks is the batch's loss."""
        ...

    def backward(self, loss: torch.Tensor) -> None:
        """Add the loss's gradient."""
        ...

    def mean(self, value: torch.Tensor) -> float:
        """A number's mean over all ranks."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether it is true on any rank."""
        ...


class Alone:
    """One process with every batch to itself."""

    first = True

    def join(self, model: nn.Module) -> nn.Module:
        """The model itself."""
        return model

    def share(self, batch: Batch) -> tuple[Batch, float]:
        """All of it."""
        return batch, 1.0

    def backward(self, loss: torch.Tensor) -> None:
        """See ``Ranks.backward``."""
        torch.autograd.backward(loss)

    def mean(self, value: torch.Tensor) -> float:
        """The number."""
        return value.item()

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag
