"""Cutting channels out: a new, smaller module from a dense one and the kept positions of its parameters."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automl_prune.channels.plan import Plan, Sizes, Slices
from automl_prune.errors import PlanError

FOLLOWING = (_ConvNd, nn.Linear, _NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, nn.Embedding)
"""Modules whose size attributes are read off their tensors."""


def prune(model: nn.Module, plan: Plan) -> nn.Module:
    """The pruned model: a new module with smaller parameters; the input is not changed.

    Args:
        model: The model the plan's graph was traced on (or one with equal shapes).
        plan: Which channels stay.

    Raises:
        PlanError: The plan is of a model with other parameters.
    """
    actual = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *model.named_buffers()]}
    if actual != dict(plan.graph.shapes):
        wrong = sorted(n for n in {*actual, *plan.graph.shapes} if actual.get(n) != plan.graph.shapes.get(n))
        raise PlanError(
            f"the plan was made for another model: {wrong[0]!r} has shape {actual.get(wrong[0])} here and "
            f"{plan.graph.shapes.get(wrong[0])} in the plan; trace this model and plan again"
        )
    return slice_model(model, plan.slices, plan.sizes)


def slice_model(model: nn.Module, slices: Slices, sizes: Sizes | None = None) -> nn.Module:
    """A copy of the model that keeps only the given positions; modules' size attributes follow their tensors.

    Everything that holds a sliced parameter gets the same new one, so tied parameters stay tied. No dense
    parameter is copied on the way.

    Args:
        model: Not changed.
        slices: Kept positions by parameter or buffer name and axis.
        sizes: New values of further attributes that hold sizes, by module and attribute.

    Raises:
        PlanError: A name, axis or position does not exist, or positions are not strictly increasing.
    """
    tensors: dict[str, torch.Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    memo: dict[int, Any] = {}
    for name, axes in slices.items():
        if name not in tensors:
            raise PlanError(f"the model has no parameter or buffer {name!r}; the plan is of another model")
        tensor = tensors[name]
        with torch.no_grad():
            small = tensor.detach()
            for axis, kept in axes.items():
                _check(name, tensor, axis, kept)
                small = small.index_select(axis, torch.tensor(kept, device=tensor.device))
        if isinstance(tensor, nn.Parameter):
            small = nn.Parameter(small.clone(), requires_grad=tensor.requires_grad)
        memo[id(tensor)] = small
    pruned = copy.deepcopy(model, memo)
    _set_sizes(pruned, sizes or {})
    for module in pruned.modules():
        _follow(module)
    return pruned


def _set_sizes(model: nn.Module, sizes: Sizes) -> None:
    modules = dict(model.named_modules())
    for name, attributes in sizes.items():
        held = vars(modules[name]) if name in modules else {}
        for attribute, value in attributes.items():
            old = held.get(attribute)
            new = tuple(value) if isinstance(old, tuple) and isinstance(value, list) else value
            if isinstance(value, int):
                fits = type(old) is int and value > 0
            else:
                fits = is_sizes(old) and len(old) == len(value) and min(value, default=0) > 0
            if not fits:
                raise PlanError(
                    f"the model has no module {name!r} whose {attribute!r} could become {value}; the plan is of "
                    "another model"
                )
            setattr(modules[name], attribute, new)


def is_sizes(value: object) -> TypeGuard[list[int] | tuple[int, ...]]:
    """Whether an attribute holds a list of whole numbers."""
    return type(value) in (list, tuple) and all(type(size) is int for size in value)  # type: ignore[attr-defined]  # either iterates


def _check(name: str, tensor: torch.Tensor, axis: int, kept: tuple[int, ...]) -> None:
    if not 0 <= axis < tensor.dim():
        raise PlanError(f"{name!r} has shape {tuple(tensor.shape)} and no axis {axis}")
    size = tensor.shape[axis]
    increasing = all(a < b for a, b in pairwise(kept))
    if not kept or not increasing or kept[0] < 0 or kept[-1] >= size:
        raise PlanError(
            f"{name!r} axis {axis} has positions 0 to {size - 1}; the kept ones must be increasing and among them"
        )


def _follow(module: nn.Module) -> None:
    """Set a module's size attributes from its tensors."""
    weight = getattr(module, "weight", None)
    if isinstance(module, _ConvNd):
        _follow_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        tensor = weight if weight is not None else module.running_mean
        if tensor is not None:
            module.num_features = tensor.shape[0]
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and weight is not None:
        module.normalized_shape = tuple(weight.shape)
    elif isinstance(module, nn.GroupNorm) and weight is not None:
        module.num_channels = weight.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = module.weight.shape


def _follow_convolution(module: _ConvNd) -> None:
    first, second = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if isinstance(module, _ConvTransposeNd):
        module.groups = first if depthwise else module.groups
        module.in_channels, module.out_channels = first, second * module.groups
    else:
        if depthwise:
            module.groups = first * module.groups // module.out_channels
        module.in_channels, module.out_channels = second * module.groups, first
