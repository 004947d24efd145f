from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.evaluation import FineTuning, Teacher, finetune
from automl_prune.files import tensors_digest
from automl_prune.tasks import Task

CPU = torch.device("cpu")


class Counting(nn.Module):
    """A model that counts how often it is asked, and answers in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout, self.asked = nn.Linear(6, 3), nn.Dropout(0.5), 0

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        self.asked += 1
        return {"logits": self.dropout(self.layer(image.flatten(1))) * scale}


def _inputs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(4, 2, 3, generator=generator), torch.tensor(2.0)


def test_the_same_inputs_are_answered_once_and_others_anew() -> None:
    model = Counting().train()
    teacher = Teacher(model)
    first = teacher(*_inputs(0))["logits"]
    assert torch.equal(teacher(*_inputs(0))["logits"], first)
    assert model.asked == 1
    model.eval()
    image, scale = _inputs(0)
    mirrored = image.flip(-1), scale  # the same values at other places
    tripled = image, torch.tensor(3.0)
    reordered = image[[1, 0, 2, 3]], scale
    for inputs in (mirrored, tripled, reordered, (image[:2], scale), (image.double().float() + 1e-6, scale)):
        assert torch.equal(teacher(*inputs)["logits"], model(*inputs)["logits"].detach())
    assert model.asked == 11


class Factor:
    """Something that nobody outside the task can look into."""

    def __init__(self, value: float) -> None:
        self.value = value


class Scaled(nn.Module):
    """An image times a number, given as one or as a ``Factor``."""

    def forward(self, parts: dict[str, Any]) -> torch.Tensor:
        scale = parts["scale"]
        answer: torch.Tensor = parts["image"] * (scale.value if isinstance(scale, Factor) else scale)
        return answer


@pytest.mark.parametrize("scales", [(2, 3.0, True), (Factor(2), Factor(3))])
def test_inputs_that_are_no_tensors_count_too(scales: tuple[Any, ...]) -> None:
    teacher, image = Teacher(Scaled()), torch.rand(2, 3)
    for scale in scales:
        inputs = {"image": image, "scale": scale}
        assert torch.equal(teacher(inputs), Scaled()(inputs))


def test_what_a_caller_does_to_an_answer_stays_with_it() -> None:
    teacher = Teacher(Counting())
    right = teacher(*_inputs(0))["logits"].clone()
    for _ in range(2):
        answer = teacher(*_inputs(0))["logits"]
        assert torch.equal(answer, right)
        answer.mul_(0)


def test_its_memory_is_bounded() -> None:
    model = Counting()
    teacher = Teacher(model, memory=200)  # an answer takes 48 bytes, and its key some more
    for seed in (0, 1, 2, 0, 1, 2):
        teacher(*_inputs(seed))
    assert 3 < model.asked < 6


@pytest.mark.parametrize("augmented", [True, False])
def test_fine_tunings_with_one_seed_ask_once_and_are_the_same_bits(
    augmented: bool, digits_task: Task, tiny_resnet: nn.Module
) -> None:
    asked: list[int] = []
    dense = copy.deepcopy(tiny_resnet)
    dense.register_forward_hook(lambda *_: asked.append(1))
    recipe, shared = FineTuning(steps=12, augment=augmented), Teacher(dense)
    students = [
        finetune(copy.deepcopy(tiny_resnet), digits_task, recipe, seed=seed, device=CPU, teacher=teacher)
        for seed, teacher in ((0, shared), (0, shared), (0, Teacher(dense, memory=0)), (1, shared))
    ]
    digests = [tensors_digest(student.state_dict()) for student in students]
    assert digests[0] == digests[1] == digests[2] != digests[3]
    assert len(asked) == 12 + 0 + 12 + 12
