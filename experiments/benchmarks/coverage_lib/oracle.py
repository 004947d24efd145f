"""Is a pruned model right? Judged without knowing how it was pruned, by the same rule for every tool.

1. Before pruning, every element of every parameter is replaced by its own flat index (exact in double precision).
   After pruning, the values say which element of the dense model each remaining one is: the tool's index maps.
2. The reference is the dense model with every removed element set to zero: a channel that is gone everywhere.
3. A norm over channels computes other statistics from fewer channels, so there the reference cannot agree. Then both
   models run once more with these statistics taken from the reference ("frozen"): index maps are still compared.
4. What still differs (convolution along channels, standardised weights) is compared with the dense model that computes
   such operators from the channels that are left ("recomputed"), as ``automl_prune.channels.reference`` does. This
   trusts our labels about where channels are, but not about which of them belong together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl_prune.channels.provenance import Provenance
from automl_prune.channels.reference import compacting
from automl_prune.channels.trace import entering, labelled_run

aten = torch.ops.aten


def floats(model: nn.Module) -> dict[str, torch.Tensor]:
    """Floating parameters and buffers under every name they have."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: tensor for name, tensor in named if tensor.is_floating_point()}


def tag(model: nn.Module) -> None:
    """Replace every element by its flat index, in place; the model must be in double precision."""
    for tensor in floats(model).values():
        tensor.data = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)


def untag(pruned: nn.Module, dense: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give a pruned, tagged model the dense model's values; returns the kept flat indices by name.

    Raises:
        ValueError: A parameter holds something that is no element of the dense one.
    """
    kept = {}
    for name, tensor in floats(pruned).items():
        index = tensor.detach().round().long()
        if name not in dense or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < dense[name].numel()):
            raise ValueError(f"{name} holds values that are no elements of the dense model's")
        kept[name] = index
    for name, tensor in floats(pruned).items():
        tensor.data = dense[name].detach().reshape(-1)[kept[name]]  # a tied one is simply set twice
    return kept


def reference(dense: nn.Module, kept: Mapping[str, torch.Tensor]) -> nn.Module:
    """A copy of the dense model whose removed parameter elements are zero; buffers stay."""
    silenced = copy.deepcopy(dense)
    for name, parameter in silenced.named_parameters(remove_duplicate=False):
        if name in kept and kept[name].numel() < parameter.numel():
            mask = torch.zeros(parameter.numel(), dtype=torch.bool)
            mask[kept[name].reshape(-1)] = True
            parameter.data = parameter.data * mask.reshape(parameter.shape)
    return silenced


def outputs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """All output tensors in evaluation mode, whatever they are nested in."""
    with torch.no_grad():
        return [leaf for leaf in tree_leaves(model.eval()(*inputs)) if isinstance(leaf, torch.Tensor)]


def difference(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest difference over all outputs, each relative to its own largest expected value.

    Raises:
        ValueError: The outputs' number or shapes differ.
    """
    shapes, wanted = [tuple(t.shape) for t in actual], [tuple(t.shape) for t in expected]
    if shapes != wanted:
        raise ValueError(f"outputs of shape {shapes[:3]} instead of {wanted[:3]}")
    worst = 0.0
    for a, e in zip(actual, expected, strict=True):
        if e.numel() and e.is_floating_point():
            scale = float(e.abs().max())
            error = float((a - e).abs().max())
            worst = max(worst, error / scale if scale > 0 else error) if error == error else float("nan")
    return worst


def judge(
    dense: nn.Module, pruned: nn.Module, kept: Mapping[str, torch.Tensor], inputs: tuple[torch.Tensor, ...]
) -> dict[str, float]:
    """Compare in double precision.

    Returns:
        ``error``: pruned against reference, relative; ``sensitivity``: reference against dense, relative, which shows
        a dead signal; ``frozen_error``, where ``error`` is not zero to rounding: with the channel statistics frozen;
        ``recomputed_error``, where that is not zero either.
    """
    silenced = reference(dense, kept)
    expected = outputs(silenced, inputs)
    found = {
        "error": difference(outputs(pruned, inputs), expected),
        "sensitivity": difference(expected, outputs(dense, inputs)),
    }
    if not found["error"] <= 1e-8:
        statistics = Statistics()
        with statistics:
            expected = outputs(silenced, inputs)
        with statistics.replayed():
            found["frozen_error"] = difference(outputs(pruned, inputs), expected)
    if not found.get("frozen_error", 0) <= 1e-8:
        found["recomputed_error"] = difference(outputs(pruned, inputs), recomputed(silenced, kept, inputs))
    return found


def recomputed(
    silenced: nn.Module, kept: Mapping[str, torch.Tensor], inputs: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Outputs of the reference when operators that look across channels see only those that are left."""
    provenance = Provenance(silenced)
    removed = np.zeros(provenance.size, dtype=bool)
    tensors = {**dict(silenced.named_parameters()), **dict(silenced.named_buffers())}
    for axis in provenance.axes:
        if axis.parameter in kept:
            places = torch.unravel_index(kept[axis.parameter].reshape(-1), tensors[axis.parameter].shape)[axis.axis]
            gone = np.setdiff1d(np.arange(axis.length), places.unique().numpy())
            removed[axis.start + gone] = True
    with entering(silenced, provenance):
        found = labelled_run(silenced, inputs, provenance, compacting(provenance, removed))
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


class Statistics(TorchDispatchMode):
    """Records what norms and reductions over channels compute; when replayed, gives the recorded values again.

    A reduction counts as one over channels when its result has the recorded shape and its input has not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[tuple[Any, torch.Size, Any]] = []
        self.position: int | None = None

    def replayed(self) -> Statistics:
        """The same records, from the start."""
        other = Statistics()
        other.records, other.position = self.records, 0
        return other

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        if packet not in _NORMS and packet not in _REDUCTIONS:
            return out
        if self.position is None:
            self.records.append((packet, args[0].shape, out))
            return out
        if self.position >= len(self.records) or self.records[self.position][0] is not packet:
            raise ValueError("the pruned model runs other operators than the dense one")
        _, shape, recorded = self.records[self.position]
        self.position += 1
        if args[0].shape == shape:
            return out
        if packet in _NORMS:
            return _NORMS[packet](args, out, recorded)
        same = [t.shape for t in tree_leaves(out)] == [t.shape for t in tree_leaves(recorded)]
        return recorded if same else out


def _layer_norm(args: Any, out: Any, recorded: Any) -> Any:
    x, weight, bias = args[0], args[2], args[3]
    value = (x - recorded[1]) * recorded[2]
    value = value * weight if weight is not None else value
    return value + bias if bias is not None else value, recorded[1], recorded[2]


def _rms_norm(args: Any, out: Any, recorded: Any) -> Any:
    x, weight = args[0], args[2] if len(args) > 2 else None
    value = x * recorded[1]
    return value * weight if weight is not None else value, recorded[1]


def _group_norm(args: Any, out: Any, recorded: Any) -> Any:
    x, weight, bias, samples, channels, _, groups = args[:7]
    if recorded[1].shape != (samples, groups):
        return out
    value = (x.reshape(samples, groups, -1) - recorded[1][..., None]) * recorded[2][..., None]
    shape = [1, channels, *[1] * (x.dim() - 2)]
    value = value.reshape(x.shape)
    value = value * weight.reshape(shape) if weight is not None else value
    return value + bias.reshape(shape) if bias is not None else value, recorded[1], recorded[2]


_NORMS: dict[Any, Callable[[Any, Any, Any], Any]] = {
    aten.native_layer_norm: _layer_norm,
    aten.native_group_norm: _group_norm,
    aten._fused_rms_norm: _rms_norm,
}
_REDUCTIONS = {
    aten.mean, aten.sum, aten.var, aten.std, aten.var_mean, aten.std_mean, aten.amax, aten.amin,
    aten.linalg_vector_norm, aten.norm,
}  # fmt: skip
