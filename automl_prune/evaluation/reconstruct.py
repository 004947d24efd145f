"""Reconstruction: layers that read removed channels get the weights that lose least without them, in closed form.

What a layer computed from all its inputs is predicted from those that are left, by least squares over the dense
model's inputs (He et al. 2017, arXiv:1707.06168, section 3.1, equation 4). The data enter through second moments
alone, which calibration took once, so a candidate costs a Cholesky factor per layer and no forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from automl_prune.calibration import Calibration, LayerStatistics
from automl_prune.calibration.statistics import MAX_INPUTS, as_weight
from automl_prune.channels import ChannelGraph, Plan

DAMPING = 1e-2
"""Ridge on the change of the weights, in units of the inputs' mean square. Between 1e-3 and 1e-2 ResNet-20's score
moves by less than its noise; a ridge on the weights themselves, as usual, is no better and needs a smaller one."""


ROUNDING = 1e-5
"""Moments are in single precision; below this share of their diagonal is noise."""


def reconstruct(
    pruned: nn.Module, dense: nn.Module, plan: Plan, calibration: Calibration, *, damping: float = DAMPING
) -> None:
    """Give every layer that lost inputs the weights nearest to computing what it computed, in place.

    For a layer with weight W, inputs kept K and removed R, and second moment H of its unfolded inputs, the new weight
    is ``W_K + W_R H_RK (H_KK + damping mean(diag H_KK) I)^-1``: the least squares solution with a ridge on the
    change. Layers with a bias use the covariance for H and put what the means differ by into the bias, which is
    least squares with an intercept; layers without one use the uncentred moment, and get no new parameter. Parts of
    a grouped convolution are solved each on its own; in a transposed one every tap is (see ``LayerStatistics``).
    Layers that ``unreconstructible`` names are left as they are.

    Args:
        pruned: Made by ``prune(dense, plan)``, on any device; its weights change.
        dense: The dense model; not changed.
        plan: Which channels stay.
        calibration: Of the dense model.
        damping: At least 0.
    """
    weights = dict(dense.named_parameters())
    with torch.no_grad():
        for layer, kept in pruned_inputs(plan, calibration):
            assert layer.second is not None
            matrix = kept_rows(weights[layer.parameter], plan, layer)
            gone = _complement(kept, matrix.shape[2])
            rows, mean = layer.second[:, kept].double(), layer.mean.double().unsqueeze(2)
            missing = matrix[:, :, gone] @ mean[:, gone]
            cross = rows[:, :, gone] @ matrix[:, :, gone].transpose(1, 2)
            centre = mean[:, kept] if output_bias(pruned, layer) is not None else torch.zeros_like(mean[:, kept])
            cross = cross - centre @ missing.transpose(1, 2)
            change = ridge(rows[:, :, kept], cross, centre, damping)
            shift = missing - change @ mean[:, kept]
            assign(pruned, layer, matrix[:, :, kept] + change, shift.flatten())


def unreconstructible(graph: ChannelGraph, calibration: Calibration) -> dict[str, str]:
    """Weights that read prunable channels and stay as they are cut, each with the reason."""
    return {
        member.parameter: reason
        for group in graph.groups
        for member in group.with_role("consumer")
        if (reason := _obstacle(calibration.layers.get(member.parameter), member.axis)) is not None
    }


def pruned_inputs(plan: Plan, calibration: Calibration) -> Iterator[tuple[LayerStatistics, torch.Tensor]]:
    """Layers that lost inputs and can be reconstructed, in network order, each with the columns it keeps."""
    for name, layer in calibration.layers.items():
        positions = plan.slices.get(name, {}).get(layer.axis)
        if positions is not None and _obstacle(layer, layer.axis) is None:
            local = [p for p in positions if p < layer.channels]  # tied parts keep the same channels
            columns = torch.tensor(local)[:, None] * layer.kernel + torch.arange(layer.kernel)
            yield layer, columns.flatten()


def kept_rows(weight: torch.Tensor, plan: Plan, layer: LayerStatistics) -> torch.Tensor:
    """The dense weight's coefficients for the outputs a plan keeps, shape (parts, outputs, n), float64, on the CPU."""
    weight = weight.detach().cpu()
    for axis, positions in plan.slices[layer.parameter].items():
        if axis != layer.axis:
            weight = weight.index_select(axis, torch.tensor(positions))
    return layer.matrix(weight).double()


def ridge(second: torch.Tensor, cross: torch.Tensor, centre: torch.Tensor, damping: float) -> torch.Tensor:
    """The change of coefficients X, shape (parts, outputs, k), that solves X (covariance + ridge) = cross^T.

    Args:
        second: Uncentred moments of the kept inputs, shape (parts, k, k).
        cross: Moments of their deviations from ``centre`` with what is missing of the outputs, (parts, k, outputs).
        centre: Means of the kept inputs, or zeros for a fit without intercept, shape (parts, k, 1).
        damping: Of the mean diagonal of the covariance. The ridge is at least the rounding of the moments, so that
            inputs that hardly vary, or not at all, change nothing.
    """
    added = ROUNDING * second.diagonal(dim1=1, dim2=2).mean(1)
    damped = second - centre @ centre.transpose(1, 2)
    added = added + damping * damped.diagonal(dim1=1, dim2=2).mean(1).clamp(min=0)
    added = torch.where(added > 0, added, torch.ones_like(added))
    damped.diagonal(dim1=1, dim2=2).add_(added.unsqueeze(1))
    return torch.cholesky_solve(cross, torch.linalg.cholesky(damped)).transpose(1, 2)


def assign(pruned: nn.Module, layer: LayerStatistics, matrix: torch.Tensor, shift: torch.Tensor) -> None:
    """Write new coefficients into a layer's weight and, where it has a bias, add ``shift``, shape (outputs,)."""
    weight = pruned.get_parameter(layer.parameter)
    weight.data.copy_(as_weight(matrix, weight, transposed=layer.transposed))
    bias = output_bias(pruned, layer)
    if bias is not None:
        bias.data.add_(shift.to(bias))


def output_bias(model: nn.Module, layer: LayerStatistics) -> nn.Parameter | None:
    """The bias added to a layer's outputs; None where there is none, or where its taps overlap (transposed)."""
    owner, _, leaf = layer.parameter.rpartition(".")
    module = model.get_submodule(owner)
    plain = isinstance(module, (nn.Linear, _ConvNd)) and not isinstance(module, _ConvTransposeNd)
    return module.bias if plain and leaf == "weight" else None  # type: ignore[return-value]  # a layer's own


def _obstacle(layer: LayerStatistics | None, axis: int) -> str | None:
    if layer is None:
        return "it is not the weight of a convolution or linear layer that ran"
    if layer.axis != axis:
        return f"its channels are read along axis {axis}, a layer of this kind reads along axis {layer.axis}"
    if layer.second is None:
        return f"it reads more than {MAX_INPUTS} inputs"
    if not layer.exact:
        return "what it multiplies by is derived from it"
    return None


def _complement(kept: torch.Tensor, size: int) -> torch.Tensor:
    gone = torch.ones(size, dtype=torch.bool)
    gone[kept] = False
    return gone.nonzero().flatten()
