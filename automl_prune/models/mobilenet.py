"""MobileNetV2 for small images, Sandler et al. 2018 (arXiv:1801.04381), table 2 with fewer strides."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

# expansion, width, blocks, stride of the first block; the paper's strides in the stem and the second row are 2, for
# images of 224 pixels
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand by a 1x1 convolution, filter each channel, project; with a shortcut where the shape stays.

    Args:
        in_width: Channels of the input.
        out_width: Channels of the output.
        stride: Of the depthwise convolution.
        expansion: Inner channels per input channel; at 1 there is no expanding convolution.
    """

    def __init__(self, in_width: int, out_width: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_width * expansion
        expand = _conv(in_width, inner, 1) if expansion != 1 else nn.Identity()
        depthwise = _conv(inner, inner, 3, stride=stride, groups=inner)
        project = nn.Sequential(nn.Conv2d(inner, out_width, 1, bias=False), nn.BatchNorm2d(out_width))
        self.body = nn.Sequential(expand, depthwise, project)
        self.residual = stride == 1 and in_width == out_width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, in_width, h, w) to (batch, out_width, h / stride, w / stride)."""
        projected: torch.Tensor = self.body(x)
        return x + projected if self.residual else projected


class SmallMobileNetV2(nn.Module):
    """Stem, seven stages of inverted residuals, a 1x1 convolution, global pooling, a linear head.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Multiplies every stage's channels, which are rounded to multiples of 8.
    """

    def __init__(self, *, num_classes: int, in_channels: int, width: float) -> None:
        super().__init__()
        channels = _rounded(32 * width)
        blocks: list[nn.Module] = [_conv(in_channels, channels, 3)]
        for expansion, stage_width, count, first_stride in _STAGES:
            out = _rounded(stage_width * width)
            for number in range(count):
                stride = first_stride if number == 0 else 1
                blocks.append(InvertedResidual(channels, out, stride=stride, expansion=expansion))
                channels = out
        last = _rounded(1280 * max(1.0, width))
        blocks.append(_conv(channels, last, 1))
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_channels, h, w) to logits (batch, num_classes)."""
        pooled = F.adaptive_avg_pool2d(self.features(x), 1)
        logits: torch.Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


def _conv(in_width: int, out_width: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_width, out_width, size, stride, padding=size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_width),
        nn.ReLU6(),
    )


def _rounded(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and at least nine tenths of ``channels``, as the authors' code does."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def mobilenet_v2(num_classes: int = 10, in_channels: int = 3, width: float = 1.0) -> SmallMobileNetV2:
    """MobileNetV2, 2.2 M parameters at width 1."""
    return SmallMobileNetV2(num_classes=num_classes, in_channels=in_channels, width=width)
