"""What models return: wherever a tensor is put, its channels must stay, and no kind of value stops the proof."""

from __future__ import annotations

import dataclasses
from collections import deque, namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, proof_error, prove
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


def _mask(m: Any, x: Any) -> Any:
    return torch.arange(5) < 2


def _logits(m: Any, x: Any) -> Any:
    return m.head(m.b(m.a(x)))


ODD: dict[str, Callable[[Any, Any], Any]] = {
    "booleans beside": lambda m, x: (_logits(m, x), _mask(m, x)),
    "booleans alone": lambda m, x: m.head(m.b(m.a(x))) > 0,
    "whole numbers": lambda m, x: (_logits(m, x).argmax(1), _logits(m, x)),
    "complex": lambda m, x: torch.fft.fft(_logits(m, x).double()),
    "minus infinity": lambda m, x: _logits(m, x).masked_fill(_mask(m, x), -torch.inf),
    "some not a number": lambda m, x: _logits(m, x).masked_fill(_mask(m, x), torch.nan),
    "empty": lambda m, x: (_logits(m, x), x.new_zeros(0)),
}


@pytest.mark.parametrize("kind", ODD)
def test_any_kind_of_number_is_compared(kind: str) -> None:
    net = Net(ODD[kind], a=conv(3, 8), b=conv(8, 6), head=head(6))
    assert check(net).widths == {"a": 8, "b": 6}


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("first", [False, True])
def test_what_is_not_finite_where_it_should_be_is_a_difference(value: float, first: bool) -> None:
    def forward(m: Any, x: Any) -> Any:
        y = m.head(m.a(x))
        spoilt = y if m.a.out_channels == 8 else y.masked_fill(_mask(m, x), value)
        return (spoilt, y) if first else (y, spoilt)

    net = Net(forward, a=conv(3, 8), head=head(8)).double()
    doubles = tuple(t.double() for t in INPUTS)
    graph = ChannelGraph.trace(net, doubles)
    error = proof_error(net, graph.plan({"a": range(4)}), doubles)
    assert not error < torch.inf
    assert not prove(net, graph, doubles).groups


def test_an_output_of_nan_alone_proves_nothing() -> None:
    net = Net(lambda m, x: (m.head(m.a(x)) * torch.nan, x), a=conv(3, 8), head=head(8)).double()
    doubles = tuple(t.double() for t in INPUTS)
    graph = ChannelGraph.trace(net, doubles)
    assert not proof_error(net, graph.plan({}), doubles) < torch.inf
    assert not prove(net, graph, doubles).groups
