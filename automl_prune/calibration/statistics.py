"""Statistics of layers' inputs as immutable values, and how they line up with the layers' weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from automl_prune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is collected; equal settings on equal model and data give equal statistics.

    Attributes:
        samples: Training samples, rounded up to whole batches and at most one epoch.
        positions: Rows of a layer's unfolded input that enter its moments, per sample and call, drawn at random
            without replacement. Neighbouring positions tell much the same; this bounds the cost of large images.
        gradient_samples: As ``samples``, for the gradient products, where a criterion asks for them.
        seed: Chooses samples and positions.
    """

    samples: int = 1024
    positions: int = 32
    gradient_samples: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("samples", "positions", "gradient_samples"):
            value = getattr(self, name)
            if value < 1:
                raise ConfigError(f"calibration: {name} is {value}; choose at least 1")


@dataclass(frozen=True, slots=True)
class LayerStatistics:
    """What the layer that owns one weight reads. A layer that is called several times adds up over its calls.

    The layer computes ``rows(weight) @ x`` for unfolded inputs x, one x per output position. ``parts`` below is
    the number of convolution groups (1 for linear layers), ``channels`` the input channels of a part, and
    ``n = channels * kernel``, in the order of ``weight.flatten(1)``: kernel positions of channel 0, of channel 1...
    Tensors are on the CPU, float32; sums were taken in float64, large covariances apart.

    Attributes:
        parameter: Qualified name of the weight.
        transposed: Whether the weight is that of a transposed convolution, shape (inputs, outputs / parts, *kernel).
            Each of its kernel taps is a least-squares problem of its own over the same inputs, so ``kernel`` is 1
            and n = channels; the sum of their errors bounds the layer's from above, up to the number of taps that
            meet in one output.
        kernel: Unfolded inputs per channel.
        exact: Whether the layer multiplies by the parameter itself. False for weights derived from it
            (standardised, parametrised): the inputs are as true, but the parameter is not what they meet.
        rows: Unfolded inputs the moments were taken over.
        covariance: Of x, shape (parts, n, n); None where n is over ``MAX_INPUTS``. It is kept instead of E[x x^T],
            which is ``covariance + mean mean^T``, because the difference of that and the means' product would be
            rounding where inputs hardly vary.
        mean: E[x] over the same rows, shape (parts, n).
        channel_mean: Mean over samples and all positions, shape (parts, channels): after the activation, as the
            layer sees it, padding left out.
        channel_variance: Likewise, the population variance.
        zero_fraction: Likewise, the fraction of values that are exactly 0, in [0, 1].
        taylor: Mean over samples of |mean over positions of value * gradient of the loss|, shape (parts, channels)
            (Molchanov et al. 2017, arXiv:1611.06440, equation 8); the gradient is that of the activation with all
            its readers, not of this layer alone. Positions are those the layer is applied at: to a linear layer after
            a flatten they are channels. None where it was not asked for.
    """

    parameter: str
    transposed: bool
    kernel: int
    exact: bool
    rows: int
    covariance: torch.Tensor | None
    mean: torch.Tensor
    channel_mean: torch.Tensor
    channel_variance: torch.Tensor
    zero_fraction: torch.Tensor
    taylor: torch.Tensor | None = None

    @property
    def parts(self) -> int:
        """Convolution groups; 1 for linear layers."""
        return self.channel_mean.shape[0]

    @property
    def channels(self) -> int:
        """Input channels of a part."""
        return self.channel_mean.shape[1]

    @property
    def axis(self) -> int:
        """The weight's axis that reads channels: 0 where transposed, else 1."""
        return 0 if self.transposed else 1

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of this layer (dense or pruned) as regression coefficients, shape (parts, outputs, n).

        Row o of part p predicts one output (one tap of it where transposed) from the n inputs of that part.
        """
        return as_matrix(weight, self.parts, transposed=self.transposed)

    def columns(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Columns of ``matrix`` and of the moments that read a group's channels, the same in every part.

        Args:
            index: ``Member.index`` of a consumer member of this weight, shape (width, positions).

        Returns:
            Shape (width, columns per channel), values in [0, n).
        """
        local = self.local(index)
        return (local[:, :, None] * self.kernel + np.arange(self.kernel)).reshape(len(local), -1)

    def local(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Positions of a group's channels within a part, for the channel statistics, shape (width, positions).

        Args:
            index: As in ``columns``. The axis of a transposed weight runs over all parts; tied channels of
                different parts fall on the same local position, which is given once.
        """
        if not self.transposed or self.parts == 1:
            return index
        return np.stack([np.unique(row % self.channels) for row in index])


def as_matrix(weight: torch.Tensor, parts: int, *, transposed: bool) -> torch.Tensor:
    """A convolution's or linear layer's weight as (parts, outputs, n); see ``LayerStatistics.matrix``."""
    if transposed:
        return weight.reshape(parts, weight.shape[0] // parts, -1).transpose(1, 2)
    return weight.reshape(parts, weight.shape[0] // parts, -1)


def as_weight(matrix: torch.Tensor, like: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """The inverse of ``as_matrix``: a tensor of the shape, type and device of ``like``."""
    rows = matrix.transpose(1, 2) if transposed else matrix
    return rows.reshape(like.shape).to(like)


MAX_INPUTS = 9216
"""Widest n whose covariance is collected: 0.3 GB. The first linear layer of a VGG has 25088."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Statistics of every convolution and linear layer that was met in one pass through the dense model. Immutable.

    Attributes:
        layers: By qualified name of the weight (``Member.parameter`` of consumers). What could not be collected is
            absent: depthwise filters (they read their own channel alone), weights used in other products
            (attention's packed projections), layers that did not run or were given no sample.
        settings: What was asked for.
        samples: How many samples were used.
        gradient_samples: How many samples the gradient products were taken over; 0 when there are none.
        model: Digest of the dense model's parameters and buffers.
        data: Digest of the task.
    """

    layers: Mapping[str, LayerStatistics]
    settings: CalibrationSettings
    samples: int
    gradient_samples: int
    model: str
    data: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", MappingProxyType(dict(self.layers)))
