"""LeNet-5, LeCun et al. 1998, "Gradient-based learning applied to document recognition", figure 2."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from automl_prune.errors import ModelError


class LeNet(nn.Module):
    """Two 5x5 convolutions with pooling, three linear layers; ReLU and maximum pooling, as it is used today.

    Args:
        num_classes: Outputs.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.

    Raises:
        ModelError: Images too small for the second convolution.
    """

    def __init__(self, *, num_classes: int, in_channels: int, image_size: int) -> None:
        super().__init__()
        side = (image_size // 2 - 4) // 2
        if side < 1:
            raise ModelError(f"image_size is {image_size}; LeNet-5 needs at least 12 pixels")
        self.conv1 = nn.Conv2d(in_channels, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * side * side, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, in_channels, image_size, image_size) to logits (batch, num_classes)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def lenet5(num_classes: int = 10, in_channels: int = 1, image_size: int = 28) -> LeNet:
    """LeNet-5, 61.7 k parameters for 28x28 gray images."""
    return LeNet(num_classes=num_classes, in_channels=in_channels, image_size=image_size)
