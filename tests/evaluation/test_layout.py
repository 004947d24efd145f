from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from automl_prune.evaluation.layout import inference, training_format
from automl_prune.models import lenet5, resnet8, resnet20

CPU = torch.device("cpu")


def strided(channels: int, *, groups: int = 1, stride: int = 2, size: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 32, size, stride, groups=groups))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (resnet20(), torch.channels_last),
        (lenet5(), torch.channels_last),
        (resnet8(width=4), torch.contiguous_format),  # its projection has 4 input channels and stride 2
        (strided(15), torch.contiguous_format),
        (strided(16), torch.channels_last),
        (strided(32, groups=4), torch.contiguous_format),
        (strided(4, stride=1), torch.channels_last),
        (strided(4, size=3), torch.channels_last),
        (nn.Conv3d(16, 16, 3), torch.contiguous_format),
    ],
)
def test_channels_last_only_where_it_is_safe(model: nn.Module, expected: torch.memory_format) -> None:
    assert training_format(model, CPU) == expected
    assert training_format(model, torch.device("cuda")) == torch.contiguous_format


def test_both_formats_give_the_same_gradients() -> None:
    model = resnet8(in_channels=1, width=16).train()
    images = torch.randn(8, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    gradients = []
    for memory_format in (torch.contiguous_format, training_format(model, CPU)):
        model = model.to(memory_format=memory_format)
        model.zero_grad()
        model(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for contiguous, chosen in zip(*gradients, strict=True):
        torch.testing.assert_close(contiguous, chosen, rtol=1e-3, atol=1e-4)


class Convolutions(nn.Module):
    """Of every kind, one of them frozen and in ``channels_last`` already."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 10, 3, padding=1)
        self.depthwise = nn.Conv2d(10, 10, 5, stride=2, groups=10)
        self.norm = nn.BatchNorm2d(10)
        self.up = nn.ConvTranspose2d(10, 4, 2, stride=2)
        self.last = nn.Conv2d(4, 6, 1, stride=2).to(memory_format=torch.channels_last).requires_grad_(False)
        self.volume = nn.Conv3d(1, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.last(self.up(self.norm(self.depthwise(self.first(x)))))
        outputs: torch.Tensor = self.volume(y.unsqueeze(1))
        return outputs


def test_inference_computes_the_same_faster_and_puts_everything_back() -> None:
    model, images = Convolutions().train(), torch.randn(5, 3, 17, 17, generator=torch.Generator().manual_seed(0))
    model.norm.eval()
    strides = [parameter.stride() for parameter in model.parameters()]
    before = copy.deepcopy(model.state_dict())
    expected = copy.deepcopy(model).double().eval()(images.double())
    kept = list(model.parameters())
    with inference(model):
        assert model.up.weight.is_contiguous(memory_format=torch.channels_last)
        assert not model.training
        outputs = model(images)
    assert not outputs.requires_grad
    torch.testing.assert_close(outputs.double(), expected, rtol=1e-4, atol=1e-5)
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert all(ours is theirs for ours, theirs in zip(model.parameters(), kept, strict=True))
    assert [model.training, model.norm.training, model.up.training] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_inference_puts_everything_back_when_the_block_fails() -> None:
    model = Convolutions()
    with pytest.raises(RuntimeError, match="stop"), inference(model):
        raise RuntimeError("stop")
    assert model.training
    assert model.first.weight.is_contiguous()


def test_what_the_block_changes_stays_changed() -> None:
    model = Convolutions()
    with inference(model):
        model.first.weight.data.copy_(torch.ones_like(model.first.weight))
    assert model.first.weight.is_contiguous()
    assert model.first.weight.eq(1).all()
