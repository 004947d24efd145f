"""VGG with batch normalisation for small images, Simonyan & Zisserman 2014 (arXiv:1409.1556), table 1."""

from __future__ import annotations

import torch
from torch import nn

from automl_prune.errors import ModelError

_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}
_WIDTHS = (1, 2, 4, 8, 8)


class SmallVGG(nn.Module):
    """Five stages of 3x3 convolutions with four poolings between them, flattened into one linear layer.

    The last map is larger than one pixel (2x2 for images of 28 or 32 pixels), so that every channel takes several
    inputs of the head.

    Args:
        depth: 11 or 16.
        num_classes: Outputs.
        in_channels: Channels of the images.
        width: Channels of the first stage; the others have 2, 4, 8 and 8 times as many.
        image_size: Height and width of the images, in pixels.

    Raises:
        ModelError: Another depth, or images too small for more than one pixel at the end.
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int, width: int, image_size: int) -> None:
        super().__init__()
        if depth not in _CONVOLUTIONS:
            raise ModelError(f"there is no VGG-{depth} here; choose {' or '.join(map(str, _CONVOLUTIONS))}")
        last = -(-image_size // 16)
        if last < 2:
            raise ModelError(f"image_size is {image_size}; VGG's four poolings need at least 17 pixels")
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, (count, factor) in enumerate(zip(_CONVOLUTIONS[depth], _WIDTHS, strict=True)):
            if stage:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            for _ in range(count):
                out = factor * width
                layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
                channels = out
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels * last * last, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_channels, image_size, image_size) to logits (batch, num_classes)."""
        logits: torch.Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return logits


def vgg11(num_classes: int = 10, in_channels: int = 3, width: int = 64, image_size: int = 32) -> SmallVGG:
    """Eight convolutions."""
    return SmallVGG(11, num_classes=num_classes, in_channels=in_channels, width=width, image_size=image_size)


def vgg16(num_classes: int = 10, in_channels: int = 3, width: int = 64, image_size: int = 32) -> SmallVGG:
    """Thirteen convolutions, 14.7 M parameters at width 64."""
    return SmallVGG(16, num_classes=num_classes, in_channels=in_channels, width=width, image_size=image_size)
