"""What a rule is given, and where rules are registered.

A rule is one function ``(provenance, call) -> None`` registered for its operators with ``@rule(...)``; users add
rules for custom operators in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket

from automl_prune.channels.provenance import Labels, Provenance


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call as the dispatcher saw it: the operator, its arguments, and what it returned."""

    func: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any

    @property
    def name(self) -> str:
        """The operator's name for messages, e.g. ``cat``."""
        return str(self.func.overloadpacket.__name__)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument whichever way it was passed."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All tensor arguments, those in lists included."""
        return _tensors([*self.args, *self.kwargs.values()])

    @property
    def outputs(self) -> list[torch.Tensor]:
        """All tensors returned."""
        return _tensors(self.out if isinstance(self.out, (tuple, list)) else [self.out])


def _tensors(values: Sequence[Any]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found.extend(item for item in value if isinstance(item, torch.Tensor))
    return found


Rule = Callable[[Provenance, Call], None]
_rules: dict[OpOverloadPacket, Rule] = {}


def rule(*operators: OpOverloadPacket) -> Callable[[Rule], Rule]:
    """Register the decorated rule for some operators, e.g. ``@rule(torch.ops.mylib.fused_block)``.

    Raises:
        ValueError: An operator has a rule already.
    """

    def add(function: Rule) -> Rule:
        for operator in operators:
            if operator in _rules:
                raise ValueError(f"{operator} has a rule already")
            _rules[operator] = function
        return function

    return add


def rule_of(operator: OpOverload) -> Rule | None:
    """The rule registered for an operator, if any."""
    return _rules.get(operator.overloadpacket)


def unknown(p: Provenance, call: Call) -> None:
    """No rule: protect everything the operator reads; what it returns has no labels."""
    not_followed(p, call, f"no rule is known for the operator {call.name}; add one with channels.rule")


def not_followed(p: Provenance, call: Call, reason: str) -> None:
    """Protect everything the operator reads, for the reason given; what it returns has no labels."""
    labels = [p.of(tensor) for tensor in call.tensors]
    p.protect_all(labels, reason)
    for tensor in call.outputs:
        p.assign(tensor, Labels({}, any(item.activation for item in labels)))


def depends_on_input(p: Provenance, tensors: Iterable[torch.Tensor]) -> bool:
    """Whether any of the tensors is an activation."""
    return any(p.of(tensor).activation for tensor in tensors)
