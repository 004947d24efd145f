"""Which order of dimensions in memory a model trains fastest in, where that is safe."""

from __future__ import annotations

import torch
from torch import nn

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
