from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from automl_prune import models
from automl_prune.costs import count_macs, count_params
from automl_prune.errors import ModelError
from automl_prune.seeding import seeded

# smallest useful form of every factory, and its image size
SMALL: dict[str, tuple[Callable[..., nn.Module], dict[str, int | float], int]] = {
    "resnet8": (models.resnet8, {"width": 4}, 8),
    "resnet20": (models.resnet20, {"width": 4}, 16),
    "resnet56": (models.resnet56, {"width": 4}, 8),
    "vgg11": (models.vgg11, {"width": 4, "image_size": 28}, 28),
    "vgg16": (models.vgg16, {"width": 4, "image_size": 32}, 32),
    "lenet5": (models.lenet5, {"image_size": 28}, 28),
    "mobilenet_v2": (models.mobilenet_v2, {"width": 0.25}, 16),
    "densenet_bc": (models.densenet_bc, {"depth": 16, "growth": 4}, 16),
}


def test_every_exported_factory_is_tested() -> None:
    assert set(SMALL) == set(models.__all__)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_learns_and_arguments_are_honoured(name: str) -> None:
    factory, options, size = SMALL[name]
    with seeded("models", name):
        model = factory(num_classes=7, in_channels=2, **options)
        images = torch.randn(8, 2, size, size)
    logits = model.train()(images)
    assert logits.shape == (8, 7)
    logits.square().sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    with torch.no_grad():
        assert torch.isfinite(model.eval()(images)).all()


@pytest.mark.parametrize("name", SMALL)
def test_equal_seeds_give_equal_models(name: str) -> None:
    factory, options, _ = SMALL[name]
    states = []
    for _ in range(2):
        with seeded("models", name):
            states.append(factory(**options).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_published_sizes() -> None:
    image = (torch.randn(1, 3, 32, 32),)
    # He et al. 2015 table 6: 0.27 M and 0.85 M; here the two projections add 2.5 k
    projections = (16 * 32 + 2 * 32) + (32 * 64 + 2 * 64)
    assert count_params(models.resnet20()) == 269_722 + projections
    assert count_params(models.resnet56()) == 853_018 + projections
    # 40.6 M and 125.5 M multiply-accumulates without projections, which add 16*32*16*16 + 32*64*8*8
    assert count_macs(models.resnet20(), image) == 40_551_040 + 262_144
    assert count_macs(models.resnet56(), image) == 125_485_696 + 262_144
    # LeCun et al. 1998 with all maps connected
    assert count_params(models.lenet5()) == 61_706
    # Huang et al. 2016: DenseNet-BC (L=100, k=12) has 0.8 M parameters
    assert round(count_params(models.densenet_bc(depth=100)) / 1e6, 1) == 0.8


def test_vgg_flattens_more_than_one_pixel() -> None:
    for size in (28, 32):
        model = models.vgg16(in_channels=1, width=4, image_size=size)
        head = next(module for module in model.modules() if isinstance(module, nn.Linear))
        assert head.in_features == 4 * 8 * 4
        assert model(torch.randn(2, 1, size, size)).shape == (2, 10)


def test_mobilenet_has_depthwise_layers_and_rounded_widths() -> None:
    convolutions = [m for m in models.mobilenet_v2(width=0.35).modules() if isinstance(m, nn.Conv2d)]
    depthwise = [m for m in convolutions if m.groups > 1]
    assert len(depthwise) == 17
    assert all(m.groups == m.in_channels == m.out_channels for m in depthwise)
    assert all(m.out_channels % 8 == 0 for m in convolutions)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: models.densenet_bc(depth=41), "depth is 41"),
        (lambda: models.densenet_bc(depth=4), "depth is 4"),
        (lambda: models.lenet5(image_size=11), "image_size is 11"),
        (lambda: models.vgg16(image_size=16), "image_size is 16"),
        (lambda: models.vgg.SmallVGG(13, num_classes=2, in_channels=1, width=4, image_size=32), "no VGG-13"),
    ],
)
def test_impossible_shapes_are_told(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build()
