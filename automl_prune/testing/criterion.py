"""What every criterion has to satisfy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, collect, with_gradients
from automl_prune.channels import ChannelGraph, ChannelGroup
from automl_prune.criteria import Criterion, CriterionContext
from automl_prune.files import tensors_digest
from automl_prune.seeding import generator, seeded
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import Augmentation, LabelledTensors, TensorImages


class _Residual(nn.Module):
    """A residual stream, a depthwise convolution, and a hidden layer without norm after flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(6, 5, 1, bias=False), nn.BatchNorm2d(5), nn.ReLU())
        self.depthwise = nn.Conv2d(5, 5, 3, padding=1, groups=5, bias=False)
        self.project = nn.Conv2d(5, 6, 1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 4 * 4, 7), nn.ReLU(), nn.Linear(7, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 3, 4, 4) to logits (batch, 2)."""
        x = self.stem(x)
        logits: torch.Tensor = self.head(x + self.project(self.depthwise(self.inner(x))))
        return logits


def _plain() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 1, bias=False), nn.Flatten(), nn.Linear(12, 2))


def _half_zero() -> nn.Module:
    """Filters and scales that are zero, as sparse training leaves them."""
    model = _Residual()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[: len(parameter) // 2].zero_()
    return model


def _all_zero() -> nn.Module:
    model = _plain()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


_MODELS: tuple[Callable[[], nn.Module], ...] = (_Residual, _plain, _half_zero, _all_zero)


def check_criterion(name: str, criterion: Criterion) -> None:
    """Check a criterion on every group of small networks that differ in kind.

    Residual streams, depthwise convolutions, layers with and without norm or bias, a linear layer after
    flatten, filters that are zero; with statistics and gradient products of noise images. Scores are one per
    channel, finite, not negative and without gradient; equal inputs give equal scores; neither the model, the
    statistics nor the global random state changes.

    Args:
        name: For messages.
        criterion: The implementation.

    Raises:
        AssertionError: The contract that does not hold, with criterion, model and group.
    """
    for where, context, group in _cases():
        where = f"criterion {name!r} on group {group.name!r} of {where}"
        weights, statistics = tensors_digest(context.parameters), _statistics_digest(context)
        random_state = torch.get_rng_state()
        scores = criterion(context, group)
        assert tensors_digest(context.parameters) == weights, f"{where} changed the model's tensors"
        assert _statistics_digest(context) == statistics, f"{where} changed the calibration's tensors"
        assert torch.equal(torch.get_rng_state(), random_state), (
            f"{where} drew from the global random state; use automl_prune.seeding.generator"
        )
        assert scores.shape == (group.width,), f"{where}: shape {tuple(scores.shape)}, expected ({group.width},)"
        assert scores.is_floating_point(), f"{where}: scores are {scores.dtype}, expected a floating type"
        assert not scores.requires_grad, f"{where}: scores carry a gradient; detach them"
        assert bool(torch.isfinite(scores).all()), f"{where}: scores are not finite: {scores.tolist()}"
        assert bool((scores >= 0).all()), f"{where}: scores are negative: {scores.tolist()}"
        assert torch.equal(criterion(context, group), scores), f"{where}: a second call gave other scores"


def _cases() -> Iterator[tuple[str, CriterionContext, ChannelGroup]]:
    for build in _MODELS:
        where = build.__name__.strip("_")
        graph, context = _case(build)
        for group in graph.groups:
            yield where, context, group


@cache
def _case(build: Callable[[], nn.Module]) -> tuple[ChannelGraph, CriterionContext]:
    task = _noise()
    with seeded("check_criterion"):
        model = build().eval()
    return ChannelGraph.trace(model, task.example_inputs), CriterionContext.of(model, calibration=_calibrate(model))


def _calibrate(model: nn.Module) -> Calibration:
    device, task = torch.device("cpu"), _noise()
    statistics = collect(model, task, CalibrationSettings(samples=32, gradient_samples=32), device=device)
    return with_gradients(statistics, model, task, device=device)


@cache
def _noise() -> Classification:
    """A task of two classes with 32 random images of shape (3, 4, 4) in every split."""
    random = generator("check_criterion images")
    images = torch.randint(256, (32, 3, 4, 4), generator=random, dtype=torch.uint8)
    split = LabelledTensors(images, torch.arange(32) % 2)
    splits = TensorImages.of(
        {"train": split, "val": split, "test": split},
        classes=("even", "odd"),
        batch_size=16,
        augmentation=Augmentation(),
    )
    return Classification("noise", splits)


def _statistics_digest(context: CriterionContext) -> str:
    assert context.calibration is not None  # _case made it
    kinds = ("covariance", "mean", "channel_mean", "channel_variance", "zero_fraction", "taylor")
    return tensors_digest(
        {
            f"{name} {kind}": getattr(layer, kind)
            for name, layer in context.calibration.layers.items()
            for kind in kinds
            if getattr(layer, kind) is not None
        }
    )
