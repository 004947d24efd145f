"""Reconstruction layer by layer: each predicts the dense outputs from what the pruned layers before it really give.

The moments of calibration are those of dense inputs, so ``reconstruct`` lets errors of early layers run through the
later ones. Here every layer in turn is fitted to the dense model's outputs on inputs that come from the layers fitted
before it, as in ThiNet (Luo et al. 2017, arXiv:1707.06342, section 3.2.3) and He et al. 2017 (arXiv:1707.06168, section
3.2). It costs a partial forward pass per layer: for the models one keeps, not for every candidate of a search.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, LayerStatistics
from automl_prune.calibration.calls import LayerCall, Watch
from automl_prune.calibration.collect import evaluating, training_batches, unfolded_rows
from automl_prune.channels import Plan
from automl_prune.evaluation.reconstruct import (
    DAMPING,
    assign,
    kept_rows,
    output_bias,
    pruned_inputs,
    reconstruct,
    ridge,
)
from automl_prune.seeding import generator
from automl_prune.tasks.base import Task, move

OnStep = Callable[[int, int], None]


def reconstruct_sequentially(
    pruned: nn.Module,
    dense: nn.Module,
    plan: Plan,
    calibration: Calibration,
    task: Task,
    *,
    device: torch.device,
    samples: int = 512,
    damping: float = DAMPING,
    on_step: OnStep | None = None,
) -> None:
    """As ``reconstruct``, then once more layer by layer on the pruned model's own inputs, in place.

    Memory: the dense outputs of the layers that lost inputs, at ``samples * positions`` rows each, and one batch.

    Args:
        pruned: Made by ``prune(dense, plan)``, on ``device``; its weights change.
        dense: The dense model on ``device``; not changed.
        plan: Which channels stay.
        calibration: Of the dense model; says which rows of each layer are looked at.
        task: Gives the training samples, those of the calibration.
        device: Where both models are.
        samples: Training samples, rounded up to whole batches and at most one epoch.
        damping: As in ``reconstruct``.
        on_step: Called with (layers done, layers in all).
    """
    reconstruct(pruned, dense, plan, calibration, damping=damping)
    kept = {layer.parameter: (layer, columns) for layer, columns in pruned_inputs(plan, calibration)}
    todo = [layer for layer, _ in kept.values()]
    settings = calibration.settings
    batches = [task.inputs(batch) for batch, _ in training_batches(task, samples, settings.seed)]
    wanted = {layer.parameter: _Target.of(dense, plan, layer) for layer in todo}
    targets: list[Mapping[str, list[torch.Tensor]]] = []
    with evaluating(dense), evaluating(pruned), torch.no_grad():
        for number, inputs in enumerate(batches):
            read = _read(dense, move(inputs, device), wanted, (settings, number))
            targets.append({name: [wanted[name](rows) for rows in calls] for name, calls in read.items()})
        for done, layer in enumerate(todo):
            name = layer.parameter
            moments = _Moments(layer.mean[:, kept[name][1]].unsqueeze(1), wanted[name].matrix.shape[2])
            for number, inputs in enumerate(batches):
                outputs = targets[number].get(name, [])
                read = _read(pruned, move(inputs, device), (name,), (settings, number), stop_after=len(outputs))
                for rows, expected in zip(read[name], outputs, strict=True):
                    moments.add(rows, expected)
            moments.fit(pruned, layer, damping)
            if on_step is not None:
                on_step(done + 1, len(todo))


@dataclass(frozen=True, slots=True)
class _Target:
    """What a layer of the dense model computes for the outputs a plan keeps."""

    matrix: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(cls, dense: nn.Module, plan: Plan, layer: LayerStatistics) -> _Target:
        matrix = kept_rows(dense.get_parameter(layer.parameter), plan, layer).transpose(1, 2).float()
        bias = output_bias(dense, layer)
        if bias is None:
            return cls(matrix, torch.zeros(1))
        name = f"{layer.parameter.rpartition('.')[0]}.bias".removeprefix(".")
        kept = plan.slices.get(name, {}).get(0, range(len(bias)))
        return cls(matrix, bias.detach().cpu().float()[list(kept)].reshape(layer.parts, 1, -1))

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Outputs, shape (parts, rows, outputs), of inputs (parts, rows, n)."""
        return rows @ self.matrix + self.bias


class _Stop(Exception):  # noqa: N818  # not an error: what was wanted of the forward pass is there
    """Ends a forward pass early."""


def _read(
    model: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    layers: Collection[str],
    stream: tuple[CalibrationSettings, int],
    *,
    stop_after: int | None = None,
) -> Mapping[str, list[torch.Tensor]]:
    """Sampled rows of what some layers read in one forward pass, by layer one tensor (parts, rows, n) per call.

    Args:
        model: Run as far as ``stop_after`` calls of these layers.
        inputs: Of the model.
        layers: Names of their weights.
        stream: With equal settings and batch number, the same positions are drawn for the dense and the pruned model.
        stop_after: None runs it to its end; 0 does not run it.
    """
    settings, number = stream
    found: dict[str, list[torch.Tensor]] = {name: [] for name in layers}

    def see(call: LayerCall) -> None:
        if call.parameter in found:
            calls = found[call.parameter]
            random = generator("sequential reconstruction", settings.seed, number, call.parameter, len(calls))
            calls.append(unfolded_rows(call, len(inputs[0]), settings.positions, random).cpu())
            if len(calls) == stop_after:
                raise _Stop

    if stop_after != 0:
        with suppress(_Stop), Watch(model, see):
            model(*inputs)
    return found


class _Moments:
    """Moments of a layer's inputs among themselves and with the outputs wanted of them.

    Args:
        shift: A point near the mean of the inputs that are kept, shape (parts, 1, inputs), float32; sums are about it.
        outputs: Of a part.
    """

    def __init__(self, shift: torch.Tensor, outputs: int) -> None:
        parts, _, inputs = shift.shape
        self.shift, self.count = shift, 0
        self.second = torch.zeros(parts, inputs, inputs, dtype=torch.float64)
        self.cross = torch.zeros(parts, inputs, outputs, dtype=torch.float64)
        self.inputs = torch.zeros(parts, inputs, 1, dtype=torch.float64)
        self.outputs = torch.zeros(parts, outputs, 1, dtype=torch.float64)

    def add(self, rows: torch.Tensor, outputs: torch.Tensor) -> None:
        """Add inputs (parts, rows, inputs) and outputs (parts, rows, outputs)."""
        rows = rows - self.shift
        self.second += rows.transpose(1, 2) @ rows
        self.cross += rows.transpose(1, 2) @ outputs
        self.inputs += rows.sum(1, dtype=torch.float64).unsqueeze(2)
        self.outputs += outputs.sum(1, dtype=torch.float64).unsqueeze(2)
        self.count += rows.shape[1]

    def fit(self, pruned: nn.Module, layer: LayerStatistics, damping: float) -> None:
        """Change the layer's weight and bias to what predicts the outputs best; nothing where no row was seen."""
        if not self.count:
            return
        weight = layer.matrix(pruned.get_parameter(layer.parameter).detach().cpu()).double()
        bias = output_bias(pruned, layer)
        offset = torch.zeros_like(self.outputs) if bias is None else bias.detach().cpu().double().view_as(self.outputs)
        about, outputs = self.inputs / self.count, self.outputs / self.count
        mean = about + self.shift.transpose(1, 2).double()
        covariance = self.second / self.count - about @ about.transpose(1, 2)
        cross = self.cross / self.count - about @ outputs.transpose(1, 2) - covariance @ weight.transpose(1, 2)
        missing = outputs - weight @ mean - offset
        change, shift = ridge(covariance, cross, mean, missing, intercept=bias is not None, damping=damping)
        assign(pruned, layer, weight + change, shift)
