"""What models return: wherever a tensor is put, its channels must stay, and no kind of value stops the proof."""

from __future__ import annotations

import dataclasses
from collections import deque, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph
from automl_prune.errors import ModelError
from tests.channels.nets import INPUTS, Net, check, conv, head

Pair = namedtuple("Pair", "features logits")


@dataclasses.dataclass
class Plain:
    features: torch.Tensor
    logits: torch.Tensor


@dataclasses.dataclass(slots=True)
class Slotted:
    features: torch.Tensor
    logits: torch.Tensor


class Base:
    __slots__ = ("__features", "unset")

    def __init__(self, features: torch.Tensor) -> None:
        self.__features = features


class Derived(Base):
    """A private slot of its base, one of its own, and attributes beside them."""

    __slots__ = ("__dict__", "empty")

    def __init__(self, features: torch.Tensor, logits: torch.Tensor) -> None:
        super().__init__(features)
        self.logits = logits


KINDS: dict[str, Callable[[Any, Any], Any]] = {
    "tuple": lambda f, y: (f, y),
    "named tuple": Pair,
    "nested": lambda f, y: {"all": [y, {"inner": (None, 1, "text", f)}]},
    "dataclass": Plain,
    "slots": Slotted,
    "slots of a base": Derived,
    "deque": lambda f, y: deque([f, y]),
    "set": lambda f, y: [{f}, frozenset({y})],
}


@pytest.mark.parametrize("kind", KINDS)
def test_returned_channels_stay_and_the_others_are_proved(kind: str) -> None:
    def forward(m: Any, x: Any) -> Any:
        features = m.a(x)
        return KINDS[kind](features, m.head(m.b(features)))

    graph = check(Net(forward, a=conv(3, 8), b=conv(8, 6), head=head(6)))
    assert graph.widths == {"b": 6}
    assert {skip.name: skip.reason for skip in graph.skipped} == {
        "a": "they are the model's output",
        "head.2": "they are the model's output",
    }


@pytest.mark.parametrize("training", [False, True])
def test_a_model_that_returns_no_tensor_is_refused(training: bool) -> None:
    def forward(m: Any, x: Any) -> Any:
        logits = m.head(m.a(x))
        return (each for each in [logits]) if m.training is training else logits

    net: nn.Module = Net(forward, a=conv(3, 8), head=head(8))
    mode = "training" if training else "evaluation"
    with pytest.raises(ModelError, match=f"no tensor is found in what the model returns in {mode} mode, a generator"):
        ChannelGraph.trace(net, INPUTS)
