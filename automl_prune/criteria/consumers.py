"""The layers that read a group's channels: their weights and statistics lined up by channel, in one place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from automl_prune.calibration import LayerStatistics
from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria.base import CriterionContext
from automl_prune.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Consumer:
    """A layer that reads a group's channels, with statistics of what it reads.

    A depthwise convolution is none: its channels go with the group's, and what they passed on is missed by the
    layer that reads them.

    Attributes:
        statistics: Of the layer's inputs.
        weight: As regression coefficients, shape (parts, outputs, n), float64 (``LayerStatistics.matrix``).
        columns: Columns of a part that read each channel, shape (width, columns per channel).
        inputs: Input channels of a part that are each channel, shape (width, positions).
    """

    statistics: LayerStatistics
    weight: torch.Tensor
    columns: torch.Tensor
    inputs: torch.Tensor

    def mean_over(self, values: torch.Tensor) -> torch.Tensor:
        """A channel statistic, shape (parts, channels), as its mean over each channel's inputs, shape (width,).

        Inputs are what the layer has weights for: to a linear layer after a flatten every position of a map is one.
        """
        return values.double()[:, self.inputs].mean(dim=(0, 2))


def consumers(context: CriterionContext, group: ChannelGroup) -> tuple[Consumer, ...]:
    """Every layer that reads the group's channels and has statistics.

    None where all readers are of a kind that is not calibrated (attention's packed projections, layers that do not
    run in evaluation mode).

    Raises:
        ConfigError: The context has no calibration.
        ModelError: The context is of another model than the group.
    """
    return tuple(_consumers(context, group))


def _consumers(context: CriterionContext, group: ChannelGroup) -> Iterator[Consumer]:
    if context.calibration is None:
        raise ConfigError(
            "this criterion needs statistics of what the layers read, and the context has no calibration; "
            "make one with automl_prune.calibration.collect and give it to CriterionContext.of"
        )
    for member in group.with_role("consumer"):
        layer = context.calibration.layers.get(member.parameter)
        if layer is not None and layer.axis == member.axis:
            yield Consumer(
                layer,
                layer.matrix(context.tensor(member)),
                torch.from_numpy(layer.columns(member.index)),
                torch.from_numpy(layer.local(member.index)),
            )
