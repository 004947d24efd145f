from __future__ import annotations

import copy
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import ConfigError, DataError, EvaluationError
from automl_prune.evaluation import FineTuning, Teacher, finetune
from automl_prune.files import load_tensors, tensors_digest
from automl_prune.tasks import Task

CPU = torch.device("cpu")


def _net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 2))


def test_the_teacher_and_the_global_random_state_are_left_alone(regression_task: Task) -> None:
    teacher, student = _net().train(), _net()
    teacher[2].eval()  # type: ignore[index]  # it is a Sequential
    before = (tensors_digest(teacher.state_dict()), [m.training for m in teacher.modules()])
    state, steps = torch.get_rng_state(), []
    finetune(
        student, regression_task, FineTuning(steps=3), seed=0, device=CPU, teacher=Teacher(teacher),
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert (tensors_digest(teacher.state_dict()), [m.training for m in teacher.modules()]) == before
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert not student.training


def test_dropout_is_seeded_and_epochs_are_cycled_in_new_orders(regression_task: Any) -> None:
    orders: list[int] = []

    class Watched(type(regression_task)):  # type: ignore[misc]  # the fixture's class has no importable name
        def batches(self, split: Any, *, shuffle: int | None = None, augment: bool = False) -> Any:
            orders.append(shuffle or 0)
            return super().batches(split, shuffle=shuffle, augment=augment)

    start = _net()
    recipe = FineTuning(steps=20, distillation=0)  # 8 batches in an epoch
    runs = [finetune(copy.deepcopy(start), Watched(), recipe, seed=seed, device=CPU) for seed in (4, 4, 5)]
    digests = [tensors_digest(run.state_dict()) for run in runs]
    assert digests[0] == digests[1] != digests[2]
    assert orders[:3] == orders[3:6]
    assert len(set(orders)) == 6


def test_biases_and_norms_are_not_decayed_but_weights_are(digits_task: Task) -> None:
    """With a constant output there is no gradient, so only the decay moves anything."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 10, 8), nn.BatchNorm2d(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.inner(x).flatten(1) * 0.0
            return result

    model = Constant()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    recipe = FineTuning(steps=4, learning_rate=0.1, weight_decay=0.5, distillation=0, augment=False)
    finetune(model, digits_task, recipe, seed=0, device=CPU)
    after = dict(model.named_parameters())
    assert after["inner.0.weight"].abs().sum() < 0.95 * before["inner.0.weight"].abs().sum()
    for name in ("inner.0.bias", "inner.1.weight", "inner.1.bias"):
        assert torch.equal(after[name], before[name])


def test_frozen_parameters_stay_and_none_left_is_an_error(regression_task: Task) -> None:
    model, recipe = _net(), FineTuning(steps=2, distillation=0)
    first = model.get_parameter("1.weight").requires_grad_(False).clone()
    finetune(model, regression_task, recipe, seed=0, device=CPU)
    assert torch.equal(model.get_parameter("1.weight"), first)
    with pytest.raises(EvaluationError, match="frozen"):
        finetune(model.requires_grad_(False), regression_task, recipe, seed=0, device=CPU)


def test_wrong_use_says_what_to_do(regression_task: Any) -> None:
    with pytest.raises(ConfigError, match="distillation needs the dense model"):
        finetune(_net(), regression_task, FineTuning(steps=1), seed=0, device=CPU)
    with pytest.raises(ConfigError, match="weight decay is -1"):
        FineTuning(steps=1, weight_decay=-1.0)
    too_large = type(regression_task)(batch_size=1000)
    with pytest.raises(DataError, match=r"data\.batch_size"):
        finetune(_net(), too_large, FineTuning(steps=1, distillation=0), seed=0, device=CPU)


def test_nan_in_the_data_is_found_at_its_step(regression_task: Any) -> None:
    class Damaged(type(regression_task)):  # type: ignore[misc]  # the fixture's class has no importable name
        def batches(self, split: Any, *, shuffle: int | None = None, augment: bool = False) -> Any:
            batches = super().batches(split, shuffle=shuffle, augment=augment)
            batches[2]["target"][:] = torch.nan
            return batches

    with pytest.raises(EvaluationError, match=r"loss is nan at step 3 of 9 \(learning rate 0\.0"):
        finetune(_net(), Damaged(), FineTuning(steps=9, distillation=0), seed=0, device=CPU)


class Stopped(Exception):  # noqa: N818  # a stand-in for kill -9
    """Raised by a test in the middle of a training."""


@pytest.mark.parametrize("stop_at", [1, 7, 8, 13])  # 8 batches in an epoch
def test_training_that_was_killed_goes_on_to_the_same_bits(stop_at: int, regression_task: Task, tmp_path: Path) -> None:
    recipe, start, teacher = FineTuning(steps=20, augment=True), _net(), _net()
    checkpoint = Checkpoint(tmp_path / "c.safetensors", {"training": 1})
    taken: list[int] = []

    def run(stop: int | None, kept: Checkpoint | None) -> nn.Module:
        def on_step(done: int, total: int) -> None:
            taken.append(done)
            if done == stop:
                raise Stopped

        return finetune(
            copy.deepcopy(start), regression_task, recipe, seed=3, device=CPU, teacher=Teacher(teacher),
            checkpoint=kept, every=0, on_step=on_step,
        )  # fmt: skip

    whole = run(None, None)
    with pytest.raises(Stopped):
        run(stop_at, checkpoint)  # before the checkpoint of this very step
    taken.clear()
    resumed = run(None, checkpoint)
    assert taken == list(range(max(1, stop_at), 21))
    assert tensors_digest(resumed.state_dict()) == tensors_digest(whole.state_dict())
    assert tensors_digest(run(None, checkpoint).state_dict()) == tensors_digest(whole.state_dict()), "nothing is left"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_request_to_stop_takes_effect_after_a_checkpoint(
    number: signal.Signals, regression_task: Task, tmp_path: Path
) -> None:
    recipe, start = FineTuning(steps=10, distillation=0), _net()
    checkpoint = Checkpoint(tmp_path / "c.safetensors", {})

    def stop(*_: object) -> None:
        raise Stopped

    def on_step(done: int, total: int) -> None:
        if done == 4:
            signal.raise_signal(number)

    before = signal.signal(number, stop)
    try:
        with pytest.raises(Stopped):
            finetune(
                copy.deepcopy(start), regression_task, recipe, seed=0, device=CPU,
                checkpoint=checkpoint, every=600, on_step=on_step,
            )  # fmt: skip
        assert signal.getsignal(number) is stop
    finally:
        signal.signal(number, before)
    assert json.loads(load_tensors(checkpoint.path)[1]["progress"])["steps_done"] == 4
    resumed = finetune(copy.deepcopy(start), regression_task, recipe, seed=0, device=CPU, checkpoint=checkpoint)
    whole = finetune(copy.deepcopy(start), regression_task, recipe, seed=0, device=CPU)
    assert tensors_digest(resumed.state_dict()) == tensors_digest(whole.state_dict())


def test_resumed_training_still_knows_that_its_loss_has_grown(regression_task: Any, tmp_path: Path) -> None:
    class Growing(type(regression_task)):  # type: ignore[misc]  # the fixture's class has no importable name
        step = 0

        def loss(self, outputs: Any, batch: Any) -> torch.Tensor:
            Growing.step += 1
            loss: torch.Tensor = super().loss(outputs, batch) * 0 + (1.0 if Growing.step <= 22 else 100.0)
            return loss

    def run(steps: int) -> None:
        recipe = FineTuning(steps=60, distillation=0)
        finetune(
            _net(), Growing(), recipe, seed=0, device=CPU,
            checkpoint=Checkpoint(tmp_path / "c", {}), every=0, on_step=lambda done, _: stop(done == steps),
        )  # fmt: skip

    def stop(now: bool) -> None:
        if now:
            raise Stopped

    with pytest.raises(Stopped):
        run(22)
    with pytest.raises(EvaluationError, match="has grown from 1 to"):
        run(60)
