"""Two processes train what one would, also from a checkpoint of the other's; what goes wrong in them is said here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.checkpoints import Checkpoint
from automl_prune.errors import ConfigError, EvaluationError
from automl_prune.evaluation import FineTuning, Teacher, check_devices, finetune, finetune_on
from automl_prune.tasks import Task, tasks

CPU = torch.device("cpu")
RECIPE = FineTuning(steps=6, learning_rate=0.05, distillation=0.5)


@pytest.fixture(scope="module")
def task() -> Task:
    return tasks["digits"](batch_size=33)  # no two equal parts


def _net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # smooth: at a kink, what rounds differently may go the other way, and weights part by far more than rounding
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))


def _apart(a: nn.Module, b: nn.Module) -> float:
    return max(float((x - y).detach().abs().max()) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_two_processes_train_what_one_does(task: Task, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    start, teacher = _net(0), _net(1)
    one = finetune(copy.deepcopy(start), task, RECIPE, seed=3, device=CPU, teacher=Teacher(teacher))
    steps: list[tuple[int, int]] = []
    two = finetune_on(
        (CPU, CPU), copy.deepcopy(start), task, RECIPE, seed=3, teacher=teacher,
        on_step=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    assert _apart(one, start) > 1e-2
    assert _apart(one, two) < 1e-5
    assert steps == [(done, 6) for done in range(1, 7)]
    assert not two.training


def test_what_two_processes_began_one_goes_on_with(task: Task, tmp_path: Path) -> None:
    pytest.importorskip("lightning_fabric")
    start = _net(0)
    recipe = FineTuning(steps=200, learning_rate=0.05, distillation=0)
    checkpoint = Checkpoint(tmp_path / "training.safetensors", {"plan": "p"})

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt  # as Ctrl-C in this process

    with pytest.raises(KeyboardInterrupt):
        finetune_on(
            (CPU, CPU), copy.deepcopy(start), task, recipe, seed=3, checkpoint=checkpoint, every=0, on_step=stop
        )
    assert checkpoint.path.is_file()
    left: list[int] = []
    resumed = finetune(
        copy.deepcopy(start), task, recipe, seed=3, device=CPU, checkpoint=checkpoint,
        on_step=lambda done, total: left.append(done),
    )  # fmt: skip
    whole = finetune(copy.deepcopy(start), task, recipe, seed=3, device=CPU)
    assert 3 <= left[0] <= 200
    assert _apart(resumed, whole) < 1e-4


def test_what_fails_in_the_processes_is_an_error_here(task: Task) -> None:
    pytest.importorskip("lightning_fabric")
    recipe = FineTuning(steps=30, learning_rate=1e20, distillation=0, warmup=0)
    with pytest.raises(EvaluationError, match=r"fine-tuning diverged: the loss is (nan|inf)"):
        finetune_on((CPU, CPU), _net(0), task, recipe, seed=0)


def test_mixed_precision_keeps_single_weights(task: Task) -> None:
    pytest.importorskip("lightning_fabric")
    start, recipe = _net(0), FineTuning(steps=3, distillation=0, precision="bf16-mixed")
    mixed = finetune_on((CPU,), copy.deepcopy(start), task, recipe, seed=0)
    single = finetune(copy.deepcopy(start), task, FineTuning(steps=3, distillation=0), seed=0, device=CPU)
    assert all(parameter.dtype == torch.float32 for parameter in mixed.parameters())
    assert 0 < _apart(mixed, single) < 1e-2


def test_what_cannot_be_sent_is_refused(task: Task) -> None:
    class Local(nn.Linear):
        pass

    with pytest.raises(ConfigError, match="define their classes and functions at the top of a module"):
        finetune_on((CPU, CPU), nn.Sequential(nn.Flatten(), Local(64, 10)), task, FineTuning(1, distillation=0), seed=0)


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (["cpu", "cuda:0"], "give CUDA devices, each once"),
        (["cuda:0", "cuda:0"], "give CUDA devices, each once"),
        (["gpu0"], "gpu0"),
        (["cuda:64"], "this machine has"),
    ],
)
def test_devices_that_cannot_work_together_are_refused(devices: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_devices(devices, "32-true")


def test_without_the_extra_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        return None

    monkeypatch.setattr("automl_prune.evaluation.parallel.find_spec", absent)
    with pytest.raises(ConfigError, match=r"pip install 'automl-prune\[multigpu\]'"):
        check_devices(["cpu", "cpu"], "32-true")
    assert check_devices(["cpu"], "32-true") == (CPU,)
