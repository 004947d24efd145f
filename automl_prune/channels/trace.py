"""Run a model once with labels beside its tensors, in evaluation and in training mode."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from automl_prune.channels.provenance import Labels, Provenance
from automl_prune.channels.rules import Call, apply_rule
from automl_prune.errors import ModelError
from automl_prune.seeding import seeded

_MAX_DEPTH = 6  # of objects searched for output tensors


class _Tracer(TorchDispatchMode):
    def __init__(self, provenance: Provenance) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class carries no annotations
        self.provenance = provenance

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        call = Call(func, args, kwargs or {}, out)
        if call.tensors and call.outputs:
            apply_rule(self.provenance, call)
        return out


def trace(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> Provenance:
    """Labels, ties, protections and costs of one forward pass; the model is not changed.

    The pass runs twice on a copy: in evaluation mode on one sample, which also gives the costs, and in training
    mode on two, so that branches that only exist while training (auxiliary heads) join their channels too.

    Args:
        model: Any module whose forward takes the example inputs.
        example_inputs: Positional inputs on the model's device; their first dimension is the batch.

    Raises:
        ModelError: The model cannot run on the example inputs.
    """
    work = copy.deepcopy(model)
    provenance = Provenance(work)
    for name, module in work.named_modules():
        module.register_forward_pre_hook(_enter(provenance, name))
    sample = tuple(tensor[:1].clone() for tensor in example_inputs)
    _run(work.eval(), sample, provenance, "evaluation")
    provenance.counting = False
    pair = tuple(torch.cat([tensor[:1], tensor[:1]]) for tensor in example_inputs)
    _run(work.train(), pair, provenance, "training")
    return provenance


def _enter(provenance: Provenance, name: str) -> Any:
    def hook(module: nn.Module, args: Any) -> None:
        provenance.layer = name

    return hook


def _run(model: nn.Module, inputs: tuple[torch.Tensor, ...], provenance: Provenance, mode: str) -> None:
    for tensor in inputs:
        provenance.assign(tensor, Labels({}, activation=True))
    try:
        with torch.no_grad(), seeded("trace"), _Tracer(provenance):
            outputs = model(*inputs)
    except Exception as error:
        shapes = [tuple(tensor.shape) for tensor in inputs]
        raise ModelError(
            f"the model cannot run in {mode} mode on inputs of shape {shapes}: {type(error).__name__}: {error}; "
            "check model.args and the data's image size and channels"
        ) from error
    for tensor in output_tensors(outputs):
        provenance.protect_all([provenance.of(tensor)], "they are the model's output")


def output_tensors(outputs: Any, depth: int = 0) -> list[torch.Tensor]:
    """All tensors in a model's outputs: nested containers, dataclasses and plain objects are searched."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if depth >= _MAX_DEPTH or outputs is None or isinstance(outputs, (str, int, float, bool)):
        return []
    if isinstance(outputs, Mapping):
        values = list(outputs.values())
    elif isinstance(outputs, (tuple, list)):
        values = list(outputs)
    else:
        values = list(getattr(outputs, "__dict__", {}).values())
    return [tensor for value in values for tensor in output_tensors(value, depth + 1)]
