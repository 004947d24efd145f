"""Residual networks for small images: the 6n+2 family of He et al. 2015 (arXiv:1512.03385), section 4.2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, projected by a 1x1 convolution where the shape changes (option B).

    Args:
        in_width: Channels of the input.
        out_width: Channels of the output.
        stride: Of the first convolution.
    """

    def __init__(self, in_width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, out_width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_width != out_width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_width, out_width, 1, stride, bias=False), nn.BatchNorm2d(out_width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_width, h, w) to (batch, out_width, h / stride, w / stride)."""
        inner = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """A stem, three stages of residual blocks of widths w, 2w and 4w, global pooling, a linear head.

    Args:
        blocks: Blocks per stage, n in 6n+2.
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Channels of the first stage, w.
    """

    def __init__(self, blocks: int, *, num_classes: int, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_channels, h, w) to logits (batch, num_classes)."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def _stage(in_width: int, out_width: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_width, out_width, stride)
    return nn.Sequential(first, *(BasicBlock(out_width, out_width, 1) for _ in range(blocks - 1)))


def resnet8(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> CifarResNet:
    """One block per stage: for tests and very small images."""
    return CifarResNet(1, num_classes=num_classes, in_channels=in_channels, width=width)


def resnet20(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> CifarResNet:
    """Three blocks per stage, 0.27 M parameters at width 16."""
    return CifarResNet(3, num_classes=num_classes, in_channels=in_channels, width=width)


def resnet56(num_classes: int = 10, in_channels: int = 3, width: int = 16) -> CifarResNet:
    """Nine blocks per stage, 0.86 M parameters at width 16."""
    return CifarResNet(9, num_classes=num_classes, in_channels=in_channels, width=width)
