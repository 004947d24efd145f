"""Score a model on one split of a task."""

from __future__ import annotations

import torch
from torch import nn

from automl_prune.evaluation.layout import inference
from automl_prune.tasks.base import Score, Split, Task, move


def score(model: nn.Module, task: Task, split: Split, device: torch.device) -> Score:
    """The task's metric of a model in evaluation mode, without gradients.

    Args:
        model: Already on ``device``; its modes are restored, and nothing else changes.
        task: Gives the batches and the metric.
        split: Which samples, all of them.
        device: Where batches are moved to.
    """
    with inference(model):
        moved = (move(batch, device) for batch in task.batches(split))
        return task.score((model(*task.inputs(batch)), batch) for batch in moved)
