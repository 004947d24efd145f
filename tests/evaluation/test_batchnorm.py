from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from automl_prune.errors import EvaluationError
from automl_prune.evaluation import recalibrate
from automl_prune.seeding import derive_seed
from automl_prune.tasks import Task

CPU = torch.device("cpu")


class Auxiliary(nn.Module):
    """A head that runs in training mode only, as GoogLeNet's do."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.side = nn.BatchNorm2d(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            x = self.side(x)
        result: torch.Tensor = self.norm(x)
        return result


def test_statistics_are_those_numpy_computes(digits_task: Task) -> None:
    """Batches of one size: the mean is that of all samples, the variance the mean of the unbiased ones."""
    norm = nn.BatchNorm2d(1)
    model = nn.Sequential(norm)
    used = recalibrate(model, digits_task, samples=200, device=CPU)
    assert used == 256  # four whole batches of 64
    images = [
        x.numpy().astype(np.float64) for x, _ in digits_task.batches("train", shuffle=derive_seed("recalibration"))
    ]
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.running_mean.item() == pytest.approx(np.concatenate(images[:4]).mean(), abs=1e-5)
    assert norm.running_var.item() == pytest.approx(np.mean([x.var(ddof=1) for x in images[:4]]), rel=1e-5)
    assert recalibrate(model, digits_task, samples=10_000, device=CPU) == 512  # all there is


def test_layers_that_do_not_run_keep_their_statistics_and_modes_stay(digits_task: Task) -> None:
    model = Auxiliary()
    model.side.running_mean = torch.tensor([3.0])
    model.norm.eval()
    recalibrate(model, digits_task, samples=64, device=CPU)
    assert model.side.running_mean.item() == 3.0
    assert model.norm.running_mean is not None
    assert model.norm.running_mean.item() != 0.0
    assert [module.training for module in model.modules()] == [True, False, True]


def test_a_second_time_changes_nothing(digits_task: Task, tiny_resnet: nn.Module) -> None:
    recalibrate(tiny_resnet, digits_task, samples=128, device=CPU)
    first = copy.deepcopy(tiny_resnet.state_dict())
    recalibrate(tiny_resnet, digits_task, samples=128, device=CPU)
    assert all(torch.equal(first[name], tensor) for name, tensor in tiny_resnet.state_dict().items())


def test_damaged_weights_are_an_error_and_settings_are_put_back(digits_task: Task) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, momentum=0.2))
    with torch.no_grad():
        model.get_parameter("0.weight").fill_(torch.inf)
    with pytest.raises(EvaluationError, match="not finite"):
        recalibrate(model, digits_task, samples=64, device=CPU)
    norm: Any = model[1]
    assert (norm.momentum, norm.training, model.training) == (0.2, True, True)


def test_one_value_per_channel_has_no_variance(regression_task: Any) -> None:
    task = type(regression_task)(batch_size=1)
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)).eval()
    with pytest.raises(EvaluationError, match=r"data\.batch_size"):
        recalibrate(model, task, samples=4, device=CPU)
    norm: Any = model[1]
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())
