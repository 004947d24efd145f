"""Reconstruction layer by layer: each predicts the dense outputs from what the pruned layers before it really give.

The moments of calibration are those of dense inputs, so ``reconstruct`` lets errors of early layers run through the
later ones. Here every layer in turn is fitted to the dense model's outputs on inputs that come from the layers fitted
before it, as in ThiNet (Luo et al. 2017, arXiv:1707.06342, section 3.2.3) and He et al. 2017 (arXiv:1707.06168, section
3.2). All samples go through the pruned model at once, and a layer is fitted when its input arrives, just before it is
applied: a candidate costs one forward pass, not one per layer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import nn

from automl_prune.calibration import Calibration, LayerStatistics
from automl_prune.calibration.calls import LayerCall, Watch
from automl_prune.calibration.collect import training_batches, unfolded_rows
from automl_prune.calibration.statistics import as_weight
from automl_prune.channels import Plan
from automl_prune.evaluation.layout import inference
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

SAMPLES = 512
INPUT = 2**30
"""Bytes that all samples of the largest input of a layer may take; where they would be more, fewer are used."""
OUTPUTS = 512 * 2**20
"""Bytes of dense outputs that are kept from one candidate to the next; where they are more, they are computed anew."""

POSITIONS, ROWS = 8, 4
"""A layer is looked at in so many positions of each sample, and in so many in all for each of its dense inputs; but in
no more than calibration is. Four times as many change the score of ResNet-20 by less than its noise."""

OnStep = Callable[[int, int], None]
_Inputs = tuple[torch.Tensor, ...]


class SequentialReconstruction:
    """Reconstructs pruned models of one dense model, layer by layer.

    Memory, beside what the forward pass of the samples takes: up to ``OUTPUTS``, on the device.

    Args:
        dense: The dense model on ``device``; not changed.
        calibration: Of the dense model; says which rows of each layer are looked at.
        task: Gives the training samples, those of the calibration.
        device: Where the models are.
        samples: Training samples, rounded up to whole batches and at most one epoch; as many of these batches as
            ``INPUT`` lets through, at least one.
    """

    def __init__(
        self, dense: nn.Module, calibration: Calibration, task: Task, *, device: torch.device, samples: int = SAMPLES
    ) -> None:
        self.dense, self.calibration = dense, calibration
        self._task, self._device, self._samples = task, device, samples
        self._chunks: Sequence[_Inputs] = ()
        self._outputs: Sequence[Mapping[str, list[torch.Tensor]]] | None = None

    def __call__(
        self, pruned: nn.Module, plan: Plan, *, damping: float = DAMPING, on_step: OnStep | None = None
    ) -> None:
        """As ``reconstruct``, then once more layer by layer on the pruned model's own inputs, in place.

        Args:
            pruned: Made by ``prune(dense, plan)``, on the device; its weights change.
            plan: Which channels stay.
            damping: As in ``reconstruct``.
            on_step: Called with (layers done, layers in all).
        """
        reconstruct(pruned, self.dense, plan, self.calibration, damping=damping)
        with inference(self.dense), inference(pruned):
            outputs = self._dense_outputs()
            fits = [
                _Fit(self.dense, plan, layer, columns, [chunk.get(layer.parameter, []) for chunk in outputs])
                for layer, columns in pruned_inputs(plan, self.calibration)
            ]
            todo = deque(fits)

            def solve() -> None:
                todo.popleft().solve(pruned, damping)
                if on_step is not None:
                    on_step(len(fits) - len(todo), len(fits))

            while todo:
                if todo[0].once:
                    self._fit_on_the_way(pruned, todo, solve)
                else:
                    self._fit_first(pruned, todo[0], solve)

    def _fit_on_the_way(self, pruned: nn.Module, todo: deque[_Fit], solve: Callable[[], None]) -> None:
        """Fit layers as the samples reach them, up to one that cannot be fitted before it is applied.

        A layer that they do not reach is left as it is.
        """
        left = len(todo)

        def see(call: LayerCall) -> None:
            if call.parameter != todo[0].parameter:
                return
            todo[0].add(self._rows(call, 0, 0), 0, 0)
            solve()
            if not todo or not todo[0].once:
                raise _Stop

        with suppress(_Stop), Watch(pruned, see):
            pruned(*self._chunks[0])
        if len(todo) == left:  # the samples take another way than through the dense model
            solve()

    def _fit_first(self, pruned: nn.Module, fit: _Fit, solve: Callable[[], None]) -> None:
        """Fit one layer that is called more than once, or whose samples come in several chunks."""
        for number, inputs in enumerate(self._chunks):
            seen, expected = 0, len(fit.outputs[number])

            def see(call: LayerCall) -> None:
                nonlocal seen
                if call.parameter != fit.parameter:
                    return
                fit.add(self._rows(call, number, seen), number, seen)  # noqa: B023  # called in this round alone
                seen += 1
                if seen == expected:  # noqa: B023
                    raise _Stop

            if expected:
                with suppress(_Stop), Watch(pruned, see):
                    pruned(*inputs)
        solve()

    def _dense_outputs(self) -> Sequence[Mapping[str, list[torch.Tensor]]]:
        """What the dense layers give in the rows looked at: by chunk and layer one (outputs, rows) per call."""
        if self._outputs is not None:
            return self._outputs
        if not self._chunks:
            self._chunks = self._load()
        layers = self.calibration.layers
        found: list[dict[str, list[torch.Tensor]]] = []
        for number, inputs in enumerate(self._chunks):
            chunk: dict[str, list[torch.Tensor]] = {}
            found.append(chunk)

            def see(call: LayerCall) -> None:
                layer = layers.get(call.parameter)
                if layer is None or layer.covariance is None or not layer.exact:
                    return
                calls = chunk.setdefault(call.parameter, [])  # noqa: B023  # called at once
                rows = self._rows(call, number, len(calls))  # noqa: B023
                outputs = layer.matrix(call.weight.detach()) @ rows.transpose(1, 2)
                bias = output_bias(self.dense, layer)
                calls.append(outputs.flatten(0, 1) if bias is None else outputs.flatten(0, 1) + bias.unsqueeze(1))

            with Watch(self.dense, see):
                self.dense(*inputs)
        if sum(rows.nbytes for chunk in found for calls in chunk.values() for rows in calls) <= OUTPUTS:
            self._outputs = found
        return found

    def _rows(self, call: LayerCall, chunk: int, number: int) -> torch.Tensor:
        """Of a call's unfolded input, the same positions in the dense and in every pruned model."""
        settings, size = self.calibration.settings, len(self._chunks[chunk][0])
        inputs = self.calibration.layers[call.parameter].mean.shape[1]
        enough = max(POSITIONS, math.ceil(ROWS * inputs / self._samples))
        random = generator("sequential reconstruction", settings.seed, chunk, call.parameter, number)
        return unfolded_rows(call, size, min(enough, settings.positions), random)

    def _load(self) -> Sequence[_Inputs]:
        """The samples as one chunk, or as the task's batches where those cannot be joined."""
        largest = _largest_input(self.dense, move(self._task.example_inputs, self._device))
        batches: list[_Inputs] = []
        for batch, size in training_batches(self._task, self._samples, self.calibration.settings.seed):
            if batches and (sum(len(inputs[0]) for inputs in batches) + size) * largest > INPUT:
                break
            batches.append(move(tuple(self._task.inputs(batch)), self._device))
        sizes = [len(inputs[0]) for inputs in batches]
        columns = list(zip(*batches, strict=True))
        joinable = all(
            len({tensor.shape[1:] for tensor in column}) == 1 and [len(tensor) for tensor in column] == sizes
            for column in columns
        )
        return [tuple(torch.cat(column) for column in columns)] if joinable else batches


class _Stop(Exception):  # noqa: N818  # not an error: what was wanted of the forward pass is there
    """Ends a forward pass early."""


class _Fit:
    """A layer's fit: moments of its inputs among themselves and with the outputs wanted of them.

    Args:
        dense: The dense model.
        plan: What it keeps.
        layer: Of the dense model.
        columns: Its inputs that are kept.
        outputs: Of the dense layer, by chunk and call.
    """

    def __init__(
        self,
        dense: nn.Module,
        plan: Plan,
        layer: LayerStatistics,
        columns: torch.Tensor,
        outputs: Sequence[list[torch.Tensor]],
    ) -> None:
        self.layer, self.outputs = layer, outputs
        weight = dense.get_parameter(layer.parameter)
        parts, count, inputs = layer.matrix(weight).shape
        numbers = torch.arange(parts * count).reshape(parts, -1, 1).expand(-1, -1, inputs)
        numbered = as_weight(numbers, weight.detach().cpu().double(), transposed=layer.transposed)
        self._kept = kept_rows(numbered, plan, layer)[:, :, 0].long()
        self._shift = layer.mean[:, columns].unsqueeze(1)
        self._count = 0
        self._second = self._cross = self._inputs = self._outputs = torch.zeros(())

    @property
    def parameter(self) -> str:
        """Name of its weight."""
        return self.layer.parameter

    @property
    def once(self) -> bool:
        """Whether all its rows come in one call."""
        return [len(calls) for calls in self.outputs] == [1]

    def add(self, rows: torch.Tensor, chunk: int, call: int) -> None:
        """Add inputs, shape (parts, rows, inputs), and what the dense layer gave in their place.

        Nothing where these are of other samples, as the pruned model sends them other ways than the dense one did.
        """
        outputs = self.outputs[chunk][call]
        if outputs.shape[1] != rows.shape[1]:
            return
        kept = self._kept.to(outputs.device)
        expected = outputs[kept.flatten()].unflatten(0, kept.shape).transpose(1, 2)
        rows = rows - self._shift.to(rows)
        transposed = rows.transpose(1, 2)
        self._second = self._second + (transposed @ rows).cpu().double()
        self._cross = self._cross + (transposed @ expected).cpu().double()
        self._inputs = self._inputs + rows.sum(1).cpu().double().unsqueeze(2)
        self._outputs = self._outputs + expected.sum(1).cpu().double().unsqueeze(2)
        self._count += rows.shape[1]

    def solve(self, pruned: nn.Module, damping: float) -> None:
        """Change the layer's weight and bias to what predicts the outputs best; nothing where no row was seen."""
        if not self._count:
            return
        weight = self.layer.matrix(pruned.get_parameter(self.parameter).detach().cpu()).double()
        bias = output_bias(pruned, self.layer)
        about, outputs = self._inputs / self._count, self._outputs / self._count
        offset = torch.zeros_like(outputs) if bias is None else bias.detach().cpu().double().view_as(outputs)
        mean = about + self._shift.transpose(1, 2).double()
        covariance = self._second / self._count - about @ about.transpose(1, 2)
        cross = self._cross / self._count - about @ outputs.transpose(1, 2) - covariance @ weight.transpose(1, 2)
        missing = outputs - weight @ mean - offset
        change, shift = ridge(covariance, cross, mean, missing, intercept=bias is not None, damping=damping)
        assign(pruned, self.layer, weight + change, shift)
        self._second = self._cross = torch.zeros(())


def _largest_input(model: nn.Module, example: _Inputs) -> float:
    """Bytes per sample of the largest input of any layer."""
    found = [0]
    with Watch(model, lambda call: found.append(call.input.nbytes)):
        model(*example)
    return max(found) / len(example[0])
