"""BatchNorm recalibration: pruned layers see other statistics than the dense ones did, so measure them anew.

Stale statistics make the scores of pruned models meaningless (Li et al. 2020, "EagleEye", arXiv:2007.02491, section 3).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Task, move

_ORDER = derive_seed("recalibration")


def recalibrate(model: nn.Module, task: Task, *, samples: int, device: torch.device) -> int:
    """Replace running statistics by the averages over training samples, in place.

    Only BatchNorm layers run in training mode (dropout and all else stay off), with a cumulative average; modes,
    momenta and parameters are as before when this returns. The same samples are used every time.

    Args:
        model: On ``device``; its running statistics change, nothing else.
        task: Gives the training batches; no augmentation.
        samples: At least this many, rounded up to whole batches and at most one epoch.
        device: Where the model is.

    Returns:
        How many samples were used; 0 when the model has no running statistics.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None
    used = 0
    try:
        with torch.no_grad():
            for batch in task.batches("train", shuffle=_ORDER):
                inputs = task.inputs(move(batch, device))
                model(*inputs)
                used += len(inputs[0])
                if used >= samples:
                    break
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
    return used
