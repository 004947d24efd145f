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
        damping: At least 0; with 0, moments that have no inverse raise torch's ``LinAlgError``.
    """
    weights = dict(dense.named_parameters())
    with torch.no_grad():
        for layer, kept in pruned_inputs(plan, calibration):
            assert layer.covariance is not None
            matrix = kept_rows(weights[layer.parameter], plan, layer)
            gone = _complement(kept, matrix.shape[2])
            lost, mean = matrix[:, :, gone], layer.mean.double().unsqueeze(2)
            rows = layer.covariance[:, kept].double()
            change, shift = ridge(
                rows[:, :, kept],
                rows[:, :, gone] @ lost.transpose(1, 2),
                mean[:, kept],
                lost @ mean[:, gone],
                intercept=output_bias(pruned, layer) is not None,
                damping=damping,
            )
            assign(pruned, layer, matrix[:, :, kept] + change, shift)


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


def ridge(
    covariance: torch.Tensor,
    cross: torch.Tensor,
    mean: torch.Tensor,
    missing: torch.Tensor,
    *,
    intercept: bool,
    damping: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The change of a layer's coefficients, and of its bias, that predicts best what is missing of its outputs.

    Args:
        covariance: Of the kept inputs, shape (parts, k, k).
        cross: Covariance of these with what is missing, shape (parts, k, outputs).
        mean: Of the kept inputs, shape (parts, k, 1).
        missing: Mean of what is missing, shape (parts, outputs, 1).
        intercept: Whether the layer has a bias to put the rest of the mean into; otherwise moments about 0 are fitted.
        damping: Of the moments' mean diagonal; inputs that are always 0 change nothing.

    Returns:
        The changes, of shapes (parts, outputs, k) and (parts * outputs,).
    """
    moments = covariance.clone() if intercept else covariance + mean @ mean.transpose(1, 2)
    if not intercept:
        cross = cross + mean @ missing.transpose(1, 2)
    added = damping * moments.diagonal(dim1=1, dim2=2).mean(1)
    added = torch.where(added > 0, added, torch.ones_like(added))
    moments.diagonal(dim1=1, dim2=2).add_(added.unsqueeze(1))
    change = torch.cholesky_solve(cross, torch.linalg.cholesky(moments)).transpose(1, 2)
    return change, (missing - change @ mean).flatten()


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
    if layer.covariance is None:
        return f"it reads more than {MAX_INPUTS} inputs"
    if not layer.exact:
        return "what it multiplies by is derived from it"
    return None


def _complement(kept: torch.Tensor, size: int) -> torch.Tensor:
    gone = torch.ones(size, dtype=torch.bool)
    gone[kept] = False
    return gone.nonzero().flatten()
