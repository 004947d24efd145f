"""BatchNorm recalibration: pruned layers see other statistics than the dense ones did, so measure them anew.

Stale statistics make the scores of pruned models meaningless (Li et al. 2020, "EagleEye", arXiv:2007.02491, section 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from automl_prune.errors import EvaluationError
from automl_prune.evaluation.layout import inference
from automl_prune.seeding import derive_seed
from automl_prune.tasks.base import Task, move

_ORDER = derive_seed("recalibration")


def recalibrate(model: nn.Module, task: Task, *, samples: int, device: torch.device) -> int:
    """Replace running statistics by the averages over training samples, in place.

    Only BatchNorm layers run in training mode (dropout and all else stay off), with a cumulative average; modes,
    momenta and parameters are as before when this returns. The same samples are used every time. Layers that the
    model does not run in evaluation mode (auxiliary heads) keep the statistics they have.

    Args:
        model: On ``device``; its running statistics change, nothing else.
        task: Gives the training batches; no augmentation.
        samples: At least this many, rounded up to whole batches and at most one epoch.
        device: Where the model is.

    Returns:
        How many samples were used; 0 when the model has no running statistics.

    Raises:
        EvaluationError: The statistics are not finite, or cannot be taken from batches this small.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.num_batches_tracked is not None]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    before = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    used = 0
    try:
        with inference(model):
            for norm in norms:
                norm.train()
                norm.reset_running_stats()
                norm.momentum = None
            for batch in task.batches("train", shuffle=_ORDER):
                inputs = task.inputs(move(batch, device))
                model(*inputs)
                used += len(inputs[0])
                if used >= samples:
                    break
    except ValueError as error:  # torch's, for one value per channel
        raise EvaluationError(
            f"BatchNorm cannot be recalibrated: {error}; raise data.batch_size to 2 or more"
        ) from error
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for norm, old in zip(norms, before, strict=True):
        _settle(norm, old)
    return used


def _settle(norm: _BatchNorm, old: Mapping[str, torch.Tensor]) -> None:
    """Put the old statistics back where the layer saw no batch; refuse new ones that are not finite."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    if norm.num_batches_tracked.item() == 0:
        norm.load_state_dict(dict(old), strict=False)
    elif not (norm.running_mean.isfinite().all() and norm.running_var.isfinite().all()):
        raise EvaluationError(
            f"activations of a BatchNorm layer with {norm.num_features} channels are not finite; the weights are "
            "damaged, load or train them again"
        )
