from __future__ import annotations

import pytest
import torch
from torch import nn

from automl_prune.evaluation.score import score
from automl_prune.tasks import Task

CPU = torch.device("cpu")


def test_score_is_what_a_plain_loop_counts_and_leaves_the_model_alone(
    digits_task: Task, tiny_resnet: nn.Module
) -> None:
    tiny_resnet.train()
    tiny_resnet.get_submodule("bn1").eval()
    modes = [module.training for module in tiny_resnet.modules()]
    before = {name: tensor.clone() for name, tensor in tiny_resnet.state_dict().items()}
    result = score(tiny_resnet, digits_task, "test", CPU)
    assert [module.training for module in tiny_resnet.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in tiny_resnet.state_dict().items())
    tiny_resnet.eval()
    hits = sum(int((tiny_resnet(images).argmax(1) == labels).sum()) for images, labels in digits_task.batches("test"))
    assert (result.value, result.samples) == (hits / 128, 128)


def test_another_kind_of_task(regression_task: Task) -> None:
    class Exact(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.flatten(1).mean(1) * 8, x.flatten(1).amax(1) + 2], dim=1)

    result = score(Exact(), regression_task, "val", CPU)
    assert result.value == pytest.approx(2**0.5)  # off by 0 and by 2
    assert result.samples == 96
    assert regression_task.metric.better(1.0, result.value)


def test_modes_are_restored_when_the_model_fails(digits_task: Task) -> None:
    model = nn.Linear(3, 3).train()
    with pytest.raises(RuntimeError):
        score(model, digits_task, "val", CPU)
    assert model.training
