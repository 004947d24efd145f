"""Criteria that look at what the channels carry: statistics of the inputs of the layers that read them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from automl_prune.calibration import LayerStatistics
from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria.base import CriterionContext, criteria, needs
from automl_prune.criteria.consumers import consumers
from automl_prune.criteria.weight import l1


@criteria.register("apoz")
@needs("statistics")
def apoz(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """One minus the average percentage of zeros (Hu et al. 2016, arXiv:1607.03250, section 3.1), shape (width,).

    Zeros are counted as the layers that read the channels see them, after the activation, and averaged over these
    layers. Says little where nothing is ever exactly 0 (GELU, SiLU, the ends of linear bottlenecks). A group that no
    layer with statistics reads is scored by ``l1`` (``is_measured``).
    """
    return _mean(context, group, lambda layer: 1 - layer.zero_fraction)


@criteria.register("mean_activation")
@needs("statistics")
def mean_activation(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Size of the mean activation (Molchanov et al. 2017, arXiv:1611.06440, section 2.2), shape (width,).

    The absolute value of the mean over samples and positions, which after a ReLU is the mean absolute value too,
    averaged over a channel's inputs to each layer that reads it, and over these layers. Where a channel is several
    inputs (tied channels, or the positions of a map that is flattened for a linear layer) each is an activation of
    its own: the absolute value is taken before they are averaged, so that none cancels another. A group that no layer
    with statistics reads is scored by ``l1`` (``is_measured``).
    """
    return _mean(context, group, lambda layer: layer.channel_mean.abs())


def is_measured(context: CriterionContext, group: ChannelGroup) -> bool:
    """Whether a layer with statistics reads the group, so that it is not scored by ``l1`` instead."""
    return bool(consumers(context, group))


def _mean(
    context: CriterionContext, group: ChannelGroup, statistic: Callable[[LayerStatistics], torch.Tensor]
) -> torch.Tensor:
    found = [consumer.mean_over(statistic(consumer.statistics)) for consumer in consumers(context, group)]
    return torch.stack(found).mean(dim=0) if found else l1(context, group)
