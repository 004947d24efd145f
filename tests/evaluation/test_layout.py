from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_prune.evaluation.layout import training_format
from automl_prune.models import lenet5, resnet8, resnet20

CPU = torch.device("cpu")


def strided(channels: int, *, groups: int = 1, stride: int = 2, size: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 32, size, stride, groups=groups))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (resnet20(), torch.channels_last),
        (lenet5(), torch.channels_last),
        (resnet8(width=4), torch.contiguous_format),  # its projection has 4 input channels and stride 2
        (strided(15), torch.contiguous_format),
        (strided(16), torch.channels_last),
        (strided(32, groups=4), torch.contiguous_format),
        (strided(4, stride=1), torch.channels_last),
        (strided(4, size=3), torch.channels_last),
        (nn.Conv3d(16, 16, 3), torch.contiguous_format),
    ],
)
def test_channels_last_only_where_it_is_safe(model: nn.Module, expected: torch.memory_format) -> None:
    assert training_format(model, CPU) == expected
    assert training_format(model, torch.device("cuda")) == torch.contiguous_format


def test_both_formats_give_the_same_gradients() -> None:
    model = resnet8(in_channels=1, width=16).train()
    images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    gradients = []
    for memory_format in (torch.contiguous_format, training_format(model, CPU)):
        model = model.to(memory_format=memory_format)
        model.zero_grad()
        model(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for contiguous, chosen in zip(*gradients, strict=True):
        torch.testing.assert_close(contiguous, chosen, rtol=1e-3, atol=1e-4)
