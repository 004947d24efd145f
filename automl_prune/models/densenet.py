"""DenseNet-BC for small images, Huang et al. 2016 (arXiv:1608.06993), section 3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from automl_prune.errors import ModelError


class DenseLayer(nn.Module):
    """BN-ReLU-1x1 to four times the growth, BN-ReLU-3x3 to the growth, appended to the input.

    Args:
        in_width: Channels of the input.
        growth: Channels it appends.
    """

    def __init__(self, in_width: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_width, h, w) to (batch, in_width + growth, h, w)."""
        inner = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(inner)))], dim=1)


class Transition(nn.Module):
    """BN-ReLU-1x1 to half the channels, then average pooling to half the size.

    Args:
        in_width: Channels of the input.
    """

    def __init__(self, in_width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(in_width)
        self.conv = nn.Conv2d(in_width, in_width // 2, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_width, h, w) to (batch, in_width // 2, h // 2, w // 2)."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class CifarDenseNet(nn.Module):
    """A stem of twice the growth, three dense blocks with transitions between them, pooling, a linear head.

    Args:
        depth: 6n+4: n layers of two convolutions per block.
        growth: Channels each layer adds.
        num_classes: Outputs.
        in_channels: Channels of the images.

    Raises:
        ModelError: The depth is not 6n+4.
    """

    def __init__(self, depth: int, growth: int, *, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers, rest = divmod(depth - 4, 6)
        if rest or layers < 1:
            raise ModelError(f"depth is {depth}; DenseNet-BC has depth 6n+4: choose 10, 16, 22, ..., 40, ..., 100")
        channels = 2 * growth
        blocks: list[nn.Module] = [nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)]
        for block in range(3):
            if block:
                blocks.append(Transition(channels))
                channels //= 2
            for _ in range(layers):
                blocks.append(DenseLayer(channels, growth))
                channels += growth
        self.features = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_channels, h, w) to logits (batch, num_classes)."""
        x = F.relu(self.bn(self.features(x)))
        logits: torch.Tensor = self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))
        return logits


def densenet_bc(num_classes: int = 10, in_channels: int = 3, depth: int = 40, growth: int = 12) -> CifarDenseNet:
    """DenseNet-BC, 0.18 M parameters at depth 40 and growth 12."""
    return CifarDenseNet(depth, growth, num_classes=num_classes, in_channels=in_channels)
