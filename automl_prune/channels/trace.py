"""Run a model once with labels beside its tensors, in evaluation and in training mode."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager, suppress
from functools import partial
from types import MemberDescriptorType
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from automl_prune.channels.provenance import HeldTensor, Labels, Provenance
from automl_prune.channels.rules import Call, apply_rule
from automl_prune.costs.memory import MemoryLog
from automl_prune.costs.unfused import followable
from automl_prune.errors import ModelError
from automl_prune.seeding import seeded

_MAX_DEPTH = 6  # of objects searched for output tensors


class Tracer(TorchDispatchMode):
    """Moves labels with every operator that runs inside the ``with`` block.

    Args:
        provenance: What is learnt.
        on_call: Told of every operator after its rule; it may overwrite the values of what was returned.
    """

    def __init__(self, provenance: Provenance, on_call: Callable[[Call], None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class carries no annotations
        self.provenance = provenance
        self.on_call = on_call

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        call = Call(func, args, kwargs or {}, out)
        if call.outputs:
            self.provenance.spanned.clear()
            apply_rule(self.provenance, call)
            if self.on_call is not None:
                self.on_call(call)
        return out


def trace(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Provenance:
    """Labels, ties, protections and costs of one forward pass; the model is not changed.

    The pass runs twice on a copy: in evaluation mode on one sample, which also gives the costs, and in training
    mode on two, so that branches that only exist while training (auxiliary heads) join their channels too.

    Args:
        model: Any module whose forward takes the example inputs.
        example_inputs: Positional inputs on the model's device; their first dimension is the batch.

    Raises:
        ModelError: The model cannot run on the example inputs, or returns no tensor.
    """
    work = copied(model)
    provenance = Provenance(work)
    with entering(work, provenance):
        sample = tuple(tensor[:1].clone() for tensor in example_inputs)
        log = MemoryLog([*work.parameters(), *work.buffers(), *sample], partial(_held, provenance))
        _run(work.eval(), sample, provenance, "evaluation", lambda call: log.see(call.tensors, call.outputs))
        provenance.memory = tuple(log.spans)
        provenance.counting = False
        pair = tuple(torch.cat([tensor[:1], tensor[:1]]) for tensor in example_inputs)
        _run(work.train(), pair, provenance, "training")
    return provenance


def copied(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        ModelError: The model holds something that cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the user's attributes raise
        raise ModelError(
            f"the model cannot be copied: {type(error).__name__}: {error}; keep tensors that are no parameters in "
            "buffers, and handles such as files or locks out of the model"
        ) from error


@contextmanager
def entering(model: nn.Module, provenance: Provenance) -> Iterator[None]:
    """Inside, ``provenance.layer`` is the name of the module that is running."""

    def enter(name: str) -> Any:
        return lambda module, args: provenance.layers.append(name)

    def leave(module: nn.Module, args: Any, out: Any) -> None:
        provenance.layers.pop()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(name), prepend=True))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def labelled_run(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    provenance: Provenance,
    on_call: Callable[[Call], None] | None = None,
) -> Any:
    """The model's outputs, with labels moved along; see ``Tracer``."""
    for tensor in inputs:
        provenance.assign(tensor, Labels({}, activation=True))
    with torch.no_grad(), seeded("trace"), followable(), Tracer(provenance, on_call):
        return model(*inputs)


def _held(provenance: Provenance, tensor: torch.Tensor) -> HeldTensor:
    size, shape = tensor.element_size(), tuple(tensor.shape)
    return HeldTensor(size, shape, provenance.of(tensor), tensor.untyped_storage().nbytes())


def _run(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    provenance: Provenance,
    mode: str,
    on_call: Callable[[Call], None] | None = None,
) -> None:
    try:
        outputs = labelled_run(model, inputs, provenance, on_call)
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise ModelError(
            f"the model cannot run in {mode} mode on inputs of shape {shapes}: {type(error).__name__}: {error}; "
            "check model.args and the data's image size and channels"
        ) from error
    tensors = output_tensors(outputs)
    if not tensors:
        raise ModelError(
            f"no tensor is found in what the model returns in {mode} mode, a {type(outputs).__name__}, and there is "
            "nothing to compare a pruned model by; return tensors, in a container or an object's attributes if need be"
        )
    for tensor in tensors:
        provenance.protect_all([provenance.of(tensor)], "they are the model's output")


def output_tensors(outputs: Any, depth: int = 0) -> list[torch.Tensor]:
    """All tensors in a model's outputs: nested containers, dataclasses and plain objects, slots too, are searched."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if depth >= _MAX_DEPTH or outputs is None or isinstance(outputs, (str, int, float, bool)):
        return []
    if isinstance(outputs, Mapping):
        values = list(outputs.values())
    elif isinstance(outputs, (tuple, list, deque, Set)):
        values = list(outputs)
    else:
        values = [*getattr(outputs, "__dict__", {}).values(), *_slots(outputs)]
    return [tensor for value in values for tensor in output_tensors(value, depth + 1)]


def _slots(value: Any) -> Iterator[Any]:
    """What an object's ``__slots__`` hold, those of its bases too; empty ones are left out."""
    for kind in type(value).__mro__:
        for slot in vars(kind).values():
            if isinstance(slot, MemberDescriptorType):
                with suppress(AttributeError):
                    yield slot.__get__(value)
