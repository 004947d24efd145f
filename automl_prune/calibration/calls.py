"""Watching a forward pass: which weight meets which input, as the functional calls say it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

_CONVOLUTIONS = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
_ARGUMENTS: Mapping[Any, tuple[str, ...]] = {
    **dict.fromkeys(_CONVOLUTIONS, ("input", "weight", "bias", "stride", "padding", "dilation", "groups")),
    **dict.fromkeys(
        _TRANSPOSED, ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    ),
    F.linear: ("input", "weight", "bias"),
}


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One product of a weight with an input.

    Attributes:
        parameter: Qualified name of the parameter that is the weight, or that it was derived from.
        exact: Whether it is the parameter itself.
        input: As the function was given it, with gradient history where there is one.
        weight: As the function was given it.
        kind: ``"linear"``, ``"convolution"`` or ``"transposed"``.
        groups: Convolution groups.
        stride, padding, dilation: Of the convolution, one per spatial dimension; padding in pairs (before, after).
    """

    parameter: str
    exact: bool
    input: torch.Tensor
    weight: torch.Tensor
    kind: str
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()


class Watch(TorchFunctionMode):
    """Calls ``see`` with every ``LayerCall`` made in the block; the model and its results are not changed.

    Functional calls are watched, not modules, because they say exactly what is multiplied by what: padding modes,
    layers that pad on their own, one weight used in several places. Weights are known by identity; one derived
    from a parameter (weight standardisation, parametrisation) is known by the innermost running module that has
    exactly one parameter of its shape.
    """

    def __init__(self, model: nn.Module, see: Callable[[LayerCall], None]) -> None:
        super().__init__()
        self._see = see
        self._model = model
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._parameters: Mapping[str, nn.Parameter] = dict(model.named_parameters())
        self._running: list[str] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, module in self._model.named_modules():
            self._hooks.append(module.register_forward_pre_hook(self._pusher(name)))
            self._hooks.append(module.register_forward_hook(self._pop, always_call=True))
        super().__enter__()  # type: ignore[no-untyped-call]  # torch has no annotation
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]  # torch has no annotation
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ARGUMENTS:
            given = dict(zip(_ARGUMENTS[func], args, strict=False)) | kwargs
            call = self._call(func, given)
            if call is not None:
                self._see(call)
        return func(*args, **kwargs)

    def _call(self, func: Any, given: Mapping[str, Any]) -> LayerCall | None:
        found = self._owner(given["weight"])
        if found is None:
            return None
        name, exact = found
        x, weight = given["input"], given["weight"]
        if func is F.linear:
            return LayerCall(name, exact, x, weight, "linear")
        dims = weight.dim() - 2
        dilation = _tuple(given.get("dilation", 1), dims)
        return LayerCall(
            name,
            exact,
            x.unsqueeze(0) if x.dim() == weight.dim() - 1 else x,
            weight,
            "transposed" if func in _TRANSPOSED else "convolution",
            groups=given.get("groups", 1),
            stride=_tuple(given.get("stride", 1), dims),
            padding=_padding(given.get("padding", 0), weight.shape[2:], dilation),
            dilation=dilation,
        )

    def _owner(self, weight: torch.Tensor) -> tuple[str, bool] | None:
        name = self._names.get(id(weight))
        if name is not None:
            return name, True
        for module in reversed(self._running):
            prefix = f"{module}." if module else ""
            alike = [n for n, p in self._parameters.items() if n.startswith(prefix) and p.shape == weight.shape]
            if alike:
                return (alike[0], False) if len(alike) == 1 else None
        return None

    def _pusher(self, name: str) -> Callable[..., None]:
        def push(module: nn.Module, inputs: Any) -> None:
            self._running.append(name)

        return push

    def _pop(self, module: nn.Module, inputs: Any, outputs: Any) -> None:
        self._running.pop()


def _tuple(value: Any, dims: int) -> tuple[int, ...]:
    return (int(value),) * dims if isinstance(value, int) else tuple(value) * (dims if len(value) == 1 else 1)


def _padding(value: Any, kernel: torch.Size, dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Padding before and after every spatial dimension; ``same`` puts the odd one after, as torch does."""
    if value == "valid":
        value = 0
    if value == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((int(v), int(v)) for v in _tuple(value, len(kernel)))
