"""Which order of dimensions in memory a model computes fastest in, where that is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from automl_prune.calibration.collect import evaluating

SAFE_CHANNELS = 16
"""Floats in the widest vector register (AVX-512): enough input channels for a strided 1x1 convolution."""


def training_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """``channels_last`` on a CPU, where it saves a quarter of ResNet-20's step; else ``contiguous_format``.

    oneDNN 3.12 (in torch 2.14.1) writes beyond its buffer in the backward pass of 1x1 convolutions with a stride
    and fewer input channels than a vector register holds, in channels_last only: the process aborts, now or later.
    Pruning makes such layers, so models that hold one stay contiguous, and so do models with three-dimensional
    convolutions, which have no such format. Elsewhere than on CPUs nothing was measured, and nothing is changed.

    Args:
        model: Not changed; apply the result by ``model.to(memory_format=...)``.
        device: Where it will be trained.
    """
    if device.type != "cpu" or any(parameter.dim() > 4 for parameter in model.parameters()):
        return torch.contiguous_format
    unsafe = any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and module.in_channels // module.groups < SAFE_CHANNELS
        for module in model.modules()
    )
    return torch.contiguous_format if unsafe else torch.channels_last


@contextmanager
def inference(model: nn.Module) -> Iterator[None]:
    """The model ready to be asked, for the block: in evaluation mode, without gradients, in its fastest format.

    On a CPU two-dimensional convolutions are in ``channels_last``, which oneDNN computes faster or as fast: ResNet-20
    by a tenth, MobileNetV2 by a third, SqueezeNet by half. (Its fault in the backward pass does not concern this: 6000
    random convolutions give what double precision gives.) Modes and formats are as before when the block ends.
    """
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    weights = [w for m in convolutions if (w := m._parameters.get("weight")) is not None]
    moved = [weight for weight in weights if weight.device.type == "cpu" and weight.is_contiguous()]
    with evaluating(model), torch.no_grad():
        for weight in moved:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
        try:
            yield
        finally:
            for weight in moved:
                weight.data = weight.data.contiguous()
