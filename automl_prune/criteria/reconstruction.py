"""Criteria that ask how well the layers that read the channels can do without them."""

from __future__ import annotations

import torch

from automl_prune.channels.group import ChannelGroup
from automl_prune.criteria.base import CriterionContext, criteria, needs
from automl_prune.criteria.consumers import Consumer, consumers
from automl_prune.criteria.removal import Quadratic, removal_order
from automl_prune.criteria.scores import in_order
from automl_prune.criteria.selection import contribution_order, lasso_path
from automl_prune.criteria.weight import l1

DAMPING = 1e-2
"""Added to the covariance's diagonal, relative to its mean: as much as reconstruction adds."""


@criteria.register("obs")
@needs("statistics")
def obs(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Greedy removal by the least error after optimal compensation (structured optimal brain surgeon).

    The error is that of the layers that read the channels, each relative to its output's variance, summed. It is
    measured in the covariance of their inputs: a lost mean is a constant that biases and norms make up for. See
    ``removal_order`` for method and papers. The score of a channel is how much its removal raised the error,
    so scores of groups have one unit; they grow in the order of removal, so that every width keeps exactly what the
    greedy method keeps.

    Returns:
        Shape (width,). A group that no layer with statistics reads is scored by ``l1`` (``is_measured``).
    """
    layers = [layer for consumer in consumers(context, group) for layer in _quadratics(consumer)]
    if not layers:
        return l1(context, group)
    return in_order(*removal_order(layers))


@criteria.register("thinet")
@needs("statistics")
def thinet(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """Greedy removal by the least squared contribution, not compensated (Luo et al. 2017, arXiv:1707.06342, 3.2).

    The removed set grows by the channel that makes its summed contribution to the outputs least (equation 6,
    algorithm 1), in every layer relative to the output's variance. Contributions are centred: a constant is made up
    for by biases and norms. They may cancel, so the error may fall; scores grow all the same, in the order of
    removal.

    Returns:
        Shape (width,). A group that no layer with statistics reads is scored by ``l1`` (``is_measured``).
    """
    products = _contributions(context, group)
    return l1(context, group) if products is None else in_order(*contribution_order(products))


@criteria.register("lasso")
@needs("statistics")
def lasso(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """The penalty at which the Lasso gives a channel up (He et al. 2017, arXiv:1707.06168, section 3.1).

    The layers' outputs are regressed on the channels' contributions with an L1 penalty; scores are the greatest
    penalty at which the channel's coefficient is not 0. The paper raises the penalty until the wanted width is
    reached; the whole path serves every width at once. Where a coefficient leaves the path and comes back, the
    sets for different penalties are not nested, and those by score are.

    Returns:
        Shape (width,). A group that no layer with statistics reads is scored by ``l1`` (``is_measured``).
    """
    products = _contributions(context, group)
    return l1(context, group) if products is None else in_order(*lasso_path(products))


def _quadratics(consumer: Consumer) -> list[Quadratic]:
    """One problem per convolution group; all relative to the variance of the layer's whole output."""
    covariances = _Covariances(consumer)
    scale = covariances.output_variance()
    if scale <= 0:
        return []  # a dead layer misses nothing
    if covariances.wide:
        # The moments were too large to collect. Without correlations nothing compensates, and the error is a sum
        # over channels, which one column each can stand for.
        losses = covariances.independent_losses()
        return [Quadratic(losses.sqrt().diag(), torch.eye(len(losses), dtype=torch.float64), 1, scale)]
    return [
        Quadratic(
            consumer.weight[part][:, consumer.columns.flatten()],
            covariances.damped_inverse(part),
            consumer.columns.shape[1],
            scale,
        )
        for part in range(len(consumer.weight))
    ]


def _contributions(context: CriterionContext, group: ChannelGroup) -> torch.Tensor | None:
    """Covariances of the channels' contributions to the outputs, relative, shape (width, width); None: no layer."""
    found = []
    for consumer in consumers(context, group):
        covariances = _Covariances(consumer)
        scale = covariances.output_variance()
        if scale > 0:
            losses = covariances.independent_losses().diag() if covariances.wide else covariances.contributions()
            found.append(losses / scale)
    return torch.stack(found).sum(dim=0) if found else None


class _Covariances:
    """Covariances of a consumer's inputs, one part at a time because they are large."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer, self.statistics = consumer, consumer.statistics
        self.columns = consumer.columns.flatten()
        self.wide = self.statistics.covariance is None

    def of(self, part: int) -> torch.Tensor:
        """Of one part, shape (n, n), float64; a copy."""
        assert self.statistics.covariance is not None  # not wide
        return self.statistics.covariance[part].to(torch.float64, copy=True)

    def damped_inverse(self, part: int) -> torch.Tensor:
        """The inverse, restricted to the group's columns, in their order."""
        matrix = self.of(part)
        diagonal = matrix.diagonal()
        diagonal += (DAMPING * diagonal.mean()).clamp(min=torch.finfo(torch.float64).tiny)
        torch.linalg.cholesky(matrix, out=matrix)  # in place: wide layers' matrices take hundreds of megabytes
        inverse = torch.cholesky_inverse(matrix)
        del matrix
        if torch.equal(self.columns, torch.arange(len(inverse))):
            return inverse
        return inverse[self.columns][:, self.columns]

    def output_variance(self) -> float:
        """Variance of the layer's outputs, summed over them."""
        if self.wide:
            return float((self.consumer.weight.square() * self._variances()).sum())
        weight = self.consumer.weight
        return sum(float(((w @ self.of(part)) * w).sum()) for part, w in enumerate(weight))

    def independent_losses(self) -> torch.Tensor:
        """Variance of each channel's contribution, were its inputs independent, shape (width,)."""
        losses = (self.consumer.weight.square() * self._variances()).sum(dim=(0, 1))
        return losses[self.consumer.columns].sum(dim=1)

    def contributions(self) -> torch.Tensor:
        """Covariances of the channels' contributions, summed over outputs and parts, shape (width, width)."""
        width, size = self.consumer.columns.shape
        total = torch.zeros(width, width, dtype=torch.float64)
        for part, weight in enumerate(self.consumer.weight):
            mine = weight[:, self.columns]
            products = self.of(part)[self.columns][:, self.columns].mul_(mine.T @ mine)
            total += products.reshape(width, size, width, size).sum(dim=(1, 3))
        return total

    def _variances(self) -> torch.Tensor:
        """Of every column, shape (parts, 1, n)."""
        return self.statistics.channel_variance.double().repeat_interleave(self.statistics.kernel, dim=1)[:, None]
