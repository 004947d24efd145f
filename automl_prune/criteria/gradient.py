"""Criteria that look at how the loss answers to the channels."""

from __future__ import annotations

import torch

from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria.base import CriterionContext, criteria, needs
from automl_prune.criteria.consumers import consumers
from automl_prune.criteria.weight import l1
from automl_prune.errors import ConfigError


@criteria.register("taylor")
@needs("gradients")
def taylor(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """First-order change of the loss without the channel (Molchanov et al. 2017, arXiv:1611.06440, eq. 8 and 9).

    Mean over samples of the size of (mean over positions of activation times gradient), divided by its Euclidean
    norm over the group's channels as section 2.2 has it, and averaged over the layers that read the channels: on a
    residual stream these read it at different depths, where gradients differ in size. Where a channel is several inputs
    of a layer (tied channels, or the positions of a map that is flattened for a linear layer) the size is taken of each
    and averaged, so that none cancels another: after a flatten this is more than equation 8 would give.

    Returns:
        Shape (width,). A group that no layer with gradient products reads is scored by ``l1``.
    """
    if context.calibration is not None and not context.calibration.gradient_samples:
        raise ConfigError(
            "this criterion needs gradient products, and the calibration has none; add them with "
            "automl_prune.calibration.with_gradients"
        )
    products = [
        consumer.mean_over(consumer.statistics.taylor)
        for consumer in consumers(context, group)
        if consumer.statistics.taylor is not None
    ]
    if not products:
        return l1(context, group)
    tiny = torch.finfo(torch.float64).tiny
    return torch.stack([product / product.norm().clamp(min=tiny) for product in products]).mean(dim=0)
