"""Sparse training: a penalty that drives whole channels to exactly zero while the dense model is trained.

The penalty is a group lasso over channels, ``strength * sum over channels of sqrt(k) * ||v||``, where v holds the
weights that belong to one channel, in every layer that writes it, and k is how many layers these are (the factor of
Yuan & Lin 2006, "Model selection and estimation in regression with grouped variables", section 2, for blocks of
equal length). Channels tied by a residual connection can only be cut together, so they are penalised together.

- ``bn``: v are the BatchNorm scales. A channel that one layer writes has one scale, and the penalty is the L1 norm of
  network slimming (Liu et al. 2017, arXiv:1708.06519, section 3).
- ``kernel``: v are the channel's filters (structured sparsity, Wen et al. 2016, arXiv:1608.03665, section 3.1) with
  their biases, norm scales and shifts. A filter before a BatchNorm alone would shrink without changing anything; with
  its scale and shift a channel at zero is silent, and cutting it is exact.

It is applied as a proximal step after every step of the optimiser, ``v <- v * max(0, 1 - step * strength * sqrt(k) /
||v||)``. A subgradient in the loss (network slimming's own code) jumps back and forth across zero and leaves scales of
the size of the learning rate; the proximal step gives real zeros and stays there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from automl_prune.channels.group import ChannelGroup, Member
from automl_prune.criteria.base import CriterionContext, is_filter
from automl_prune.criteria.weight import is_bn_scale
from automl_prune.errors import ConfigError, ModelError
from automl_prune.registry import nearest
from automl_prune.training.baseline import Regulariser, Training, one_cycle

Kind = Literal["bn", "kernel"]
"""What is penalised: BatchNorm scales, or everything that computes a channel."""


@dataclass(frozen=True, slots=True)
class Sparsity:
    """A penalty and its weight in the training loss.

    Attributes:
        kind: ``"bn"`` or ``"kernel"``.
        strength: Above 0; about the gradient of the loss that a channel must bring to stay.
    """

    kind: Kind
    strength: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConfigError(f"sparse training knows no kind {self.kind!r}; {nearest(self.kind, get_args(Kind))}")
        if not (math.isfinite(self.strength) and self.strength > 0):
            raise ConfigError(f"training.sparse.{self.kind} is {self.strength}; choose a positive number, e.g. 1e-3")

    def reach(self, recipe: Training, steps: int) -> float:
        """How far the scale of a channel that nothing holds shrinks in a training of so many steps."""
        rates = (one_cycle(step, steps, recipe.learning_rate, recipe.warmup) for step in range(steps))
        return self.strength * sum(rates) / (1 - recipe.momentum)


class ChannelLasso:
    """The penalty as a ``Regulariser``.

    Args:
        model: The model that will be trained; only names are taken from it.
        groups: Its channel groups; channels outside of them are not penalised.
        sparsity: Which weights, and how strongly.

    Raises:
        ModelError: No group has such weights.
    """

    def __init__(self, model: nn.Module, groups: Iterable[ChannelGroup], sparsity: Sparsity) -> None:
        self.sparsity = sparsity
        blocks = (_Block.of(model, group, sparsity.kind) for group in groups)
        self.blocks = tuple(block for block in blocks if block is not None)
        if not self.blocks:
            raise ModelError(
                "no channel group of the model has a BatchNorm scale to penalise; use --sparse kernel"
                if sparsity.kind == "bn"
                else "no channel group of the model has filters to penalise"
            )

    @property
    def identity(self) -> Mapping[str, Any]:
        """The penalty and its strength."""
        return asdict(self.sparsity)

    def shrink(self, parameters: Mapping[str, torch.Tensor], step: float) -> None:
        """Shorten every channel's block by ``step * strength * sqrt(k)``, down to zero, in place."""
        for block in self.blocks:
            block.shrink(parameters, step * self.sparsity.strength)

    def scales(self, parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """How large every channel's block is, by group name: ``||v|| / sqrt(k)``, shape (width,), on the CPU."""
        return {block.group: block.norms(parameters).cpu() / math.sqrt(block.layers) for block in self.blocks}


@dataclass(frozen=True, slots=True)
class _Block:
    """The penalised weights of one group.

    Attributes:
        group: Its name.
        members: Axes of parameters, one row per channel.
        layers: k, how many layers write a channel.
    """

    group: str
    members: Sequence[Member]
    layers: int

    @classmethod
    def of(cls, model: nn.Module, group: ChannelGroup, kind: Kind) -> _Block | None:
        """The block of a group; None where the group has no such weights."""
        context, trained = CriterionContext.of(model), dict(model.named_parameters())
        counted = [m for m in group.members if (is_bn_scale if kind == "bn" else is_filter)(context, m)]
        counted = [member for member in counted if member.parameter in trained]
        if not counted:
            return None
        if kind == "bn":
            return cls(group.name, counted, len(counted))
        computing = [m for m in group.members if m.role != "consumer" and m.parameter in trained]
        return cls(group.name, computing, len(counted))

    def norms(self, parameters: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """``||v||`` of every channel, shape (width,)."""
        rows = [member.rows(parameters[member.parameter]).square().sum(dim=1) for member in self.members]
        return torch.stack(rows).sum(dim=0).sqrt()

    def shrink(self, parameters: Mapping[str, torch.Tensor], amount: float) -> None:
        """Shorten every channel's block by ``amount * sqrt(k)``, down to zero, in place."""
        norms = self.norms(parameters)
        factors = (1 - amount * math.sqrt(self.layers) / norms).clamp(
            min=0
        )  # a block at zero divides to minus infinity and stays there
        for member in self.members:
            tensor = parameters[member.parameter]
            along = torch.ones(tensor.shape[member.axis], dtype=tensor.dtype, device=tensor.device)
            index = torch.from_numpy(member.index).to(tensor.device)
            along[index] = factors.to(tensor.dtype)[:, None].expand(index.shape)
            tensor.mul_(along.view([-1 if axis == member.axis else 1 for axis in range(tensor.dim())]))


def _proof(lasso: ChannelLasso) -> Regulariser:  # the type checker proves that it is one
    return lasso
