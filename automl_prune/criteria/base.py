"""What a criterion is, what it may look at, and how scores of different groups are made comparable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import nn

from automl_prune.channels.group import ChannelGroup, Member
from automl_prune.errors import ConfigError, ModelError, PlanError
from automl_prune.registry import Registry


@dataclass(frozen=True, slots=True)
class CriterionContext:
    """Everything a criterion may look at. Immutable; the tensors are the model's own, never written to.

    Attributes:
        parameters: Parameters and buffers of the dense model, by qualified name.
        seed: For criteria that draw random numbers.
    """

    parameters: Mapping[str, torch.Tensor]
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    @classmethod
    def of(cls, model: nn.Module, seed: int = 0) -> CriterionContext:
        """The context of a model as it is now."""
        return cls({**dict(model.named_parameters()), **dict(model.named_buffers())}, seed)

    def values(self, member: Member) -> torch.Tensor:
        """A member's values by channel, shape (width, values per channel), float64 on the CPU.

        Raises:
            ModelError: When the context is of another model than the member.
        """
        if member.parameter not in self.parameters:
            raise ModelError(f"{member.parameter!r} is not in the model being scored; trace that same model again")
        return member.rows(self.parameters[member.parameter]).cpu().double()


Criterion = Callable[[CriterionContext, ChannelGroup], torch.Tensor]
"""Importance of every channel of a group, shape (width,), finite, at least 0; the highest are kept. A pure
function. Only the order and the ratios within a group have a meaning: ``score_groups`` removes the unit."""

criteria: Registry[Criterion] = Registry("criteria")


def filter_rows(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    """The weights that compute each channel, in one row per channel: the matrix magnitude criteria work on.

    Rows of producers (output axes of convolutions and linear layers) and filters of depthwise convolutions
    (channelwise members with at least two dimensions), side by side in the order of the group's members.
    Channels tied by a residual connection have one filter in every layer that writes to the stream; all of
    them count. Biases and norms are left out.

    Returns:
        Shape (width, total weights per channel), float64 on the CPU.

    Raises:
        ModelError: When no weight computes the group's channels.
    """
    rows = [context.values(member) for member in group.members if is_filter(context, member)]
    if not rows:
        raise ModelError(
            f"group {group.name!r} has no weights that compute its channels, so weights cannot rank them; "
            f"put {group.name!r} under `exclude` in the search space"
        )
    return torch.cat(rows, dim=1)


def is_filter(context: CriterionContext, member: Member) -> bool:
    """Whether a member's weights compute channels: rows of a producer, filters of a depthwise convolution."""
    if member.role == "channelwise":
        return member.parameter in context.parameters and context.parameters[member.parameter].dim() >= 2
    return member.role == "producer"


def score_groups(groups: Sequence[ChannelGroup], context: CriterionContext, criterion: str) -> dict[str, torch.Tensor]:
    """Scores of every group by one criterion, each divided by its mean, so that groups are comparable.

    Args:
        groups: The groups to score; not changed.
        context: The dense model's tensors.
        criterion: A registered name; an unknown one raises ``ConfigError`` with the nearest names.

    Returns:
        By group name, shape (width,), mean 1; all ones where every channel scored 0.

    Raises:
        ConfigError: When the criterion breaks its contract (shape, a negative score).
        ModelError: When scores are not finite, which means that weights are not.
    """
    score = criteria[criterion]
    return {group.name: _normalised(score(context, group), group, criterion) for group in groups}


def _normalised(scores: torch.Tensor, group: ChannelGroup, criterion: str) -> torch.Tensor:
    where = f"criterion {criterion!r}, group {group.name!r}"
    if scores.shape != (group.width,):
        raise ConfigError(f"{where}: scores have shape {tuple(scores.shape)}, expected ({group.width},)")
    scores = scores.detach().cpu().double()
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise ModelError(
            f"{where}: {bad} of {group.width} scores are NaN or infinite; the model's weights are damaged, "
            "load or train them again"
        )
    if bool((scores < 0).any()):
        raise ConfigError(f"{where}: lowest score is {scores.min().item():.4g}; a criterion must not be negative")
    # Two divisions: the sum of huge finite scores may overflow, and the mean of tiny ones may vanish.
    largest = scores.max()
    if largest == 0:
        return torch.ones_like(scores)
    scores = scores / largest
    return scores / scores.mean()


def keep_best(scores: torch.Tensor, keep: int) -> tuple[int, ...]:
    """The channels with the highest scores, ascending; of equal scores the lower index is kept.

    Args:
        scores: Shape (width,).
        keep: How many, from 1 to width; anything else raises ``PlanError``.
    """
    if not 1 <= keep <= len(scores):
        raise PlanError(f"cannot keep {keep} of {len(scores)} channels; keep from 1 to {len(scores)}")
    order = torch.argsort(scores, descending=True, stable=True)
    return tuple(sorted(order[:keep].tolist()))
