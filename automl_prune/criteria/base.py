"""What a criterion is, and what it may look at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import nn

from automl_prune.calibration import Calibration
from automl_prune.channels.group import ChannelGroup, Member
from automl_prune.errors import ModelError
from automl_prune.registry import Registry


@dataclass(frozen=True, slots=True)
class CriterionContext:
    """Everything a criterion may look at. Immutable; the tensors are the model's own, never written to.

    Attributes:
        parameters: Parameters and buffers of the dense model, by qualified name.
        seed: For criteria that draw random numbers.
        calibration: What the layers read; None where no criterion asked for it.
    """

    parameters: Mapping[str, torch.Tensor]
    seed: int
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    @classmethod
    def of(cls, model: nn.Module, seed: int = 0, calibration: Calibration | None = None) -> CriterionContext:
        """The context of a model as it is now."""
        return cls({**dict(model.named_parameters()), **dict(model.named_buffers())}, seed, calibration)

    @property
    def has(self) -> frozenset[Need]:
        """What a criterion may need and finds here."""
        if self.calibration is None:
            return frozenset(("weights",))
        if not self.calibration.gradient_samples:
            return frozenset(("weights", "statistics"))
        return frozenset(("weights", "statistics", "gradients"))

    def tensor(self, member: Member) -> torch.Tensor:
        """The tensor a member sits on, whole, float64 on the CPU.

        Raises:
            ModelError: When the context is of another model than the member.
        """
        if member.parameter not in self.parameters:
            raise ModelError(f"{member.parameter!r} is not in the model being scored; trace that same model again")
        return self.parameters[member.parameter].detach().cpu().double()

    def values(self, member: Member) -> torch.Tensor:
        """A member's values by channel, shape (width, values per channel), float64 on the CPU; raises as ``tensor``."""
        return member.rows(self.tensor(member))


Need = Literal["weights", "statistics", "gradients"]
"""What a criterion is computed from: the weights alone, statistics of what the layers read, or these with their
gradient products. Each includes the ones before it."""

Criterion = Callable[[CriterionContext, ChannelGroup], torch.Tensor]
"""Importance of every channel of a group, shape (width,), finite, at least 0; the highest are kept. A pure
function. Only the order and the ratios within a group have a meaning: ``score_groups`` removes the unit."""

criteria: Registry[Criterion] = Registry("criteria")

_needs: dict[Criterion, Need] = {}


def needs(need: Need) -> Callable[[Criterion], Criterion]:
    """A decorator that declares what a criterion needs beside the weights; put it below ``register``.

    The calibration is collected when a criterion that needs it is asked for, and only then.
    """

    def declare(criterion: Criterion) -> Criterion:
        _needs[criterion] = need
        return criterion

    return declare


def need_of(criterion: Criterion) -> Need:
    """What a criterion declared that it needs; the weights alone where it declared nothing."""
    return _needs.get(criterion, "weights")


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
