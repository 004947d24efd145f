"""Channel groups: sets of channels that live and die together, and where each of them sits in every parameter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

Role = Literal["producer", "consumer", "channelwise"]
"""How a parameter uses a channel: its rows compute it (output axis of a convolution), its columns read it (input
axis), or it acts on every channel alone (norm scale, bias, running statistics, depthwise filter)."""


@dataclass(frozen=True, slots=True)
class Member:
    """One axis of one parameter or buffer on which a group's channels sit.

    Attributes:
        parameter: Qualified name in ``model.named_parameters()`` or ``named_buffers()``.
        axis: Dimension of that tensor.
        index: Positions on the axis, shape (width, positions per channel); row c belongs to channel c of the
            group. More than one column where a channel takes several positions (a linear layer after flatten).
        role: How the parameter uses the channel.
    """

    parameter: str
    axis: int
    index: NDArray[np.int64]
    role: Role

    def rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor's values by channel, shape (width, positions per channel * product of the other dims)."""
        index = torch.from_numpy(self.index).to(tensor.device)
        chosen = tensor.detach().movedim(self.axis, 0)[index.reshape(-1)]
        return chosen.reshape(index.shape[0], -1)


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels whose removal touches the same parameter axes; any subset of them may be kept.

    Attributes:
        name: Readable and stable: the layer that first produces the channels.
        width: Number of channels.
        members: Every parameter axis the channels sit on.
        mixes: What looks across the channels (``a norm``, ``softmax``, ``mean``), if anything does. The pruned model
            computes it from the channels that are left, so even channels without influence change it a little.
        spanned: Whether any operator but a layer's weights computes one value from several of the channels; besides
            what ``mixes`` them, a product of two activations does.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    mixes: tuple[str, ...] = ()
    spanned: bool = False

    def with_role(self, role: Role) -> Iterator[Member]:
        """The members with one role."""
        return (member for member in self.members if member.role == role)


@dataclass(frozen=True, slots=True)
class Skipped:
    """Channels that are not prunable, and why.

    Attributes:
        name: The layer that produces them.
        width: How many channels.
        reason: One sentence that names the operator or layer and, where there is one, the cure.
    """

    name: str
    width: int
    reason: str
