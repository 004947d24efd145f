"""One pass of training samples through the dense model, and what every layer read in it, summed as it streams by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from automl_prune.calibration.calls import LayerCall, Watch
from automl_prune.calibration.statistics import MAX_INPUTS, Calibration, CalibrationSettings, LayerStatistics
from automl_prune.errors import DataError, EvaluationError
from automl_prune.files import tensors_digest
from automl_prune.seeding import derive_seed, generator
from automl_prune.tasks.base import Batch, Task, move

_DOUBLE = 1024
"""Moments of at most this many inputs are summed in double precision."""

OnStep = Callable[[int, int], None]


def collect(
    model: nn.Module,
    task: Task,
    settings: CalibrationSettings,
    *,
    device: torch.device,
    on_step: OnStep | None = None,
) -> Calibration:
    """Statistics of every layer's inputs over training samples, in evaluation mode and without augmentation.

    Memory is bounded by the moments (4 bytes a value where they are large) and one batch; see ``CalibrationSettings``
    for the cost.

    Args:
        model: The dense model on ``device``; not changed.
        task: Gives the training batches.
        settings: How many samples and positions.
        device: Where it runs; the result is on the CPU.
        on_step: Called with (samples done, samples in all).

    Raises:
        DataError: The training split has no batch.
        EvaluationError: Activations are not finite.
    """
    sums: dict[str, _Sums] = {}
    random = generator("calibration positions", settings.seed)
    size = used = 0

    def see(call: LayerCall) -> None:
        if not call.input.numel():
            return  # no sample came this way (an expert that is not asked)
        if call.groups > 1 and call.groups == call.input.shape[1]:
            return  # depthwise: every filter reads its own channel
        if call.parameter not in sums:
            sums[call.parameter] = _Sums(call)
        sums[call.parameter].add(call, size, settings.positions, random)

    with evaluating(model), torch.no_grad():
        for batch, size in training_batches(task, settings.samples, settings.seed, on_step):
            with Watch(model, see):
                model(*task.inputs(move(batch, device)))
            used += size
    layers = {name: sums.pop(name).statistics(name) for name in list(sums)}
    return Calibration(layers, settings, used, 0, tensors_digest(model.state_dict()), task.digest)


def with_gradients(
    calibration: Calibration, model: nn.Module, task: Task, *, device: torch.device, on_step: OnStep | None = None
) -> Calibration:
    """The same statistics with first-order Taylor products of every layer's input channels.

    A backward pass to the inputs alone: no parameter gets a gradient, and frozen models work too.

    Args:
        calibration: Of this model and task; the same samples are used, but fewer.
        model: The dense model on ``device``; not changed.
        task: Gives the training batches and the loss.
        device: Where it runs.
        on_step: Called with (samples done, samples in all).

    Raises:
        DataError: The training split has no batch.
        EvaluationError: No gradient reaches the inputs, or an activation is overwritten after it is read.
    """
    settings = calibration.settings
    sums: dict[str, torch.Tensor] = {}
    size = used = 0

    def see(call: LayerCall) -> None:
        _hook(call, size, sums)

    with evaluating(model), torch.enable_grad():
        for batch, size in training_batches(task, settings.gradient_samples, settings.seed, on_step):
            batch = move(batch, device)
            inputs = [x.detach().requires_grad_(x.is_floating_point()) for x in task.inputs(batch)]
            with Watch(model, see):
                outputs = model(*(x.clone() for x in inputs))  # a leaf could not be changed in place
            loss = task.loss(outputs, batch)
            differentiable = [x for x in inputs if x.requires_grad]
            if not loss.requires_grad or not differentiable:
                raise EvaluationError("the loss does not depend on the inputs in a way that torch can differentiate")
            # the loss is a mean over samples, and only the sizes of products matter: undo the division
            torch.autograd.grad(loss * size, differentiable, allow_unused=True)
            used += size
    layers = {
        name: replace(layer, taylor=(sums[name] / used).reshape(layer.channel_mean.shape).float().cpu())
        if name in sums
        else layer
        for name, layer in calibration.layers.items()
    }
    return replace(calibration, layers=layers, gradient_samples=used)


def training_batches(task: Task, samples: int, seed: int, on_step: OnStep | None = None) -> Iterator[tuple[Batch, int]]:
    """Training batches in one order for a seed until there are ``samples``, each with its size."""
    batches = task.batches("train", shuffle=derive_seed("calibration", seed))
    if not len(batches):
        raise DataError("the training split has no batch; lower data.batch_size or add samples")
    used = 0
    for batch in batches:
        size = len(task.inputs(batch)[0])
        yield batch, size
        used += size
        if on_step is not None:
            on_step(min(used, samples), samples)
        if used >= samples:
            return


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for the block; every module gets its mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _by_channel(call: LayerCall, size: int) -> torch.Tensor:
    """The input as (samples, channels, positions...); what a linear layer reads beside channels are positions."""
    x = call.input.detach()
    if call.kind != "linear":
        return x
    leading = size if x.shape[0] % size == 0 else x.shape[0]
    return x.reshape(leading, -1, x.shape[-1]).transpose(1, 2)


class _Sums:
    """Running sums of one layer."""

    def __init__(self, call: LayerCall) -> None:
        device = call.input.device
        self.exact = call.exact
        self.transposed = call.kind == "transposed"
        self.parts = call.groups
        self.kernel = 1 if call.kind != "convolution" else int(call.weight[0, 0].numel())
        channels = call.weight.shape[0] // call.groups if self.transposed else call.weight.shape[1]
        n = channels * self.kernel
        # Half the memory where it is much. A hundred batches round to a millionth of the sum in single precision, and
        # whoever inverts the covariance adds a hundredth of its diagonal.
        kind = torch.float64 if n <= _DOUBLE else torch.float32
        self.second = None if n > MAX_INPUTS else torch.zeros(self.parts, n, n, dtype=kind, device=device)
        self.first = torch.zeros(self.parts, n, dtype=torch.float64, device=device)
        self.shift: torch.Tensor | None = None
        self.rows = 0
        self.total, self.squares, self.zeros = torch.zeros(3, self.parts, channels, dtype=torch.float64, device=device)
        self.values = 0

    def add(self, call: LayerCall, size: int, positions: int, random: torch.Generator) -> None:
        """Add one call's input; ``size`` is the batch's."""
        x = _by_channel(call, size)
        flat = x.flatten(2) if x.dim() > 2 else x.unsqueeze(2)
        shape = self.total.shape
        self.total += flat.sum((0, 2), dtype=torch.float64).reshape(shape)
        self.squares += torch.linalg.vector_norm(flat, dim=(0, 2)).double().square().reshape(shape)  # without a copy
        self.zeros += (flat == 0).sum((0, 2)).double().reshape(shape)
        self.values += flat.shape[0] * flat.shape[2]
        self.exact = self.exact and call.exact
        rows = unfolded_rows(call, size, positions, random)
        if self.shift is None:  # sums about a point near the mean: the covariance is not a difference of large numbers
            self.shift = rows.mean(1, keepdim=True)
        rows = rows - self.shift
        self.first += rows.sum(1, dtype=torch.float64)
        if self.second is not None:
            if self.second.dtype == rows.dtype:
                self.second.baddbmm_(rows.transpose(1, 2), rows)  # in place: the product is as large as the sum
            else:
                self.second += rows.transpose(1, 2) @ rows
        self.rows += rows.shape[1]

    def statistics(self, name: str) -> LayerStatistics:
        """The sums as means."""
        assert self.shift is not None
        mean, first = self.total / self.values, self.first / self.rows
        if not bool(self.squares.isfinite().all()):
            raise EvaluationError(
                f"what {name!r} reads is not finite; the weights are damaged, load or train them again"
            )
        return LayerStatistics(
            parameter=name,
            transposed=self.transposed,
            kernel=self.kernel,
            exact=self.exact,
            rows=self.rows,
            covariance=None if self.second is None else self._covariance(self.second, first).float().cpu(),
            mean=(self.shift.squeeze(1) + first).float().cpu(),
            channel_mean=mean.float().cpu(),
            channel_variance=(self.squares / self.values - mean**2).clamp(min=0).float().cpu(),
            zero_fraction=(self.zeros / self.values).float().cpu(),
        )

    def _covariance(self, second: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """The covariance, in the place of the sum ``second``; ``first`` is the mean, both about the shift."""
        offset = first.to(second.dtype).unsqueeze(2)
        return second.div_(self.rows).baddbmm_(offset, offset.transpose(1, 2), alpha=-1)


def unfolded_rows(call: LayerCall, size: int, positions: int, random: torch.Generator) -> torch.Tensor:
    """Rows of a call's unfolded input, as the layer pads it, shape (parts, rows, n); no row of an empty input.

    Args:
        call: With its input.
        size: Of the batch.
        positions: How many rows per sample, drawn at random; all where there are no more.
        random: On the CPU; equal generators choose equal positions of inputs of equal extent.
    """
    if not call.input.numel():
        transposed = call.kind == "transposed"
        inputs = len(call.weight) // call.groups if transposed else call.weight[0].numel()
        return call.input.new_zeros(call.groups, 0, inputs)
    x = _by_channel(call, size)
    positions = max(1, positions * size // len(x))
    if call.kind == "convolution":
        pads = [amount for pair in reversed(call.padding) for amount in pair]
        padded = F.pad(x, pads) if any(pads) else x
        starts, offsets = _patches(padded.shape[2:], call)
    else:
        padded = x
        starts, offsets = torch.arange(max(1, x[0, 0].numel())), torch.zeros(1, dtype=torch.int64)
    samples, channels = x.shape[:2]
    if positions < len(starts):
        chosen = torch.rand(samples, len(starts), generator=random).argsort(1)[:, :positions]
        starts = starts[chosen]
    else:
        starts = starts.expand(samples, -1)
    index = (starts[:, :, None] + offsets).to(x.device)
    spread = index.reshape(samples, 1, -1).expand(-1, channels, -1)
    patches = padded.reshape(samples, channels, -1).gather(2, spread)
    rows = patches.reshape(samples, channels, -1, len(offsets)).transpose(1, 2)
    return rows.reshape(-1, call.groups, channels // call.groups * len(offsets)).transpose(0, 1)


def _patches(spatial: torch.Size, call: LayerCall) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat positions of every patch's corner in the padded input, and of a patch's values from its corner."""
    kernel = call.weight.shape[2:]
    starts = offsets = torch.zeros(1, dtype=torch.int64)
    for size, k, stride, dilation in zip(spatial, kernel, call.stride, call.dilation, strict=True):
        count = (size - dilation * (k - 1) - 1) // stride + 1
        starts = (starts[:, None] * size + torch.arange(count) * stride).reshape(-1)
        offsets = (offsets[:, None] * size + torch.arange(k) * dilation).reshape(-1)
    return starts, offsets


def _hook(call: LayerCall, size: int, sums: dict[str, torch.Tensor]) -> None:
    """Let the gradient of a call's input, when it comes, add its product with the value to ``sums``."""
    x, version = call.input, call.input._version
    if not x.requires_grad or not x.numel():
        return

    def add(gradient: torch.Tensor) -> None:
        if x._version != version:
            raise EvaluationError(
                f"what {call.parameter!r} reads is overwritten in place later, so its gradient has no value to go "
                "with; use criteria without gradients"
            )
        products = _by_channel(replace(call, input=x.detach() * gradient), size)
        product = products.flatten(2).mean(2) if products.dim() > 2 else products
        total = product.double().abs().sum(0)
        sums[call.parameter] = sums[call.parameter] + total if call.parameter in sums else total

    x.register_hook(add)
