"""Criteria that look at the weights alone: no data, no forward pass."""

from __future__ import annotations

import torch

from automl_prune.channels.group import ChannelGroup, Member
from automl_prune.criteria.base import CriterionContext, criteria, filter_rows
from automl_prune.seeding import generator


@criteria.register("l1")
def l1(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Sum of absolute filter weights (Li et al. 2017, arXiv:1608.08710, section 3.1). Shape (width,)."""
    return filter_rows(context, group).abs().sum(dim=1)


@criteria.register("l2")
def l2(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Euclidean norm of the filter weights (an ablation in arXiv:1608.08710), shape (width,)."""
    return filter_rows(context, group).square().sum(dim=1).sqrt()


@criteria.register("geometric_median")
def geometric_median(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Sum of the distances to the group's other filters (FPGM, He et al. 2019, arXiv:1811.00250, section 3).

    A filter near the geometric median of its layer can be replaced by the others and scores low. Shape
    (width,).
    """
    rows = filter_rows(context, group)
    # Scaled so that squares neither overflow nor vanish; cdist's Gram matrix makes 2048 channels quick.
    scale = rows.abs().max().clamp(min=torch.finfo(rows.dtype).tiny)
    rows = rows / scale
    distances = torch.cdist(rows, rows).fill_diagonal_(0.0)
    return scale * distances.sum(dim=1)


@criteria.register("bn_scale")
def bn_scale(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Sum of a channel's absolute BatchNorm scales (Liu et al. 2017, arXiv:1708.06519, section 3).

    A norm counts when it keeps running statistics, as BatchNorm does; LayerNorm and GroupNorm do not, and
    their scale does not say how large a channel is. A group without one (the hidden layer of a
    classifier, a LeNet) is scored by ``l1``, so that one model may have both kinds; ``has_bn_scale``
    tells which groups these are. Scores are normalised within a group before anything compares groups, so
    the two units never meet.

    Returns:
        Shape (width,).
    """
    scales = [context.values(member) for member in group.members if is_bn_scale(context, member)]
    if not scales:
        return l1(context, group)
    return torch.cat(scales, dim=1).abs().sum(dim=1)


def has_bn_scale(context: CriterionContext, group: ChannelGroup) -> bool:
    """Whether ``bn_scale`` finds a BatchNorm scale in the group, and does not score it by ``l1``."""
    return any(is_bn_scale(context, member) for member in group.members)


def is_bn_scale(context: CriterionContext, member: Member) -> bool:
    """Whether a member is the scale of a norm that keeps running statistics."""
    prefix, _, leaf = member.parameter.rpartition(".")
    statistics = f"{prefix}.running_var" if prefix else "running_var"
    return member.role == "channelwise" and leaf == "weight" and statistics in context.parameters


@criteria.register("random")
def random(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Uniform random scores from the seed and the group's name alone, a baseline to beat; shape (width,)."""
    return torch.rand(group.width, generator=generator("criterion", context.seed, group.name), dtype=torch.float64)
