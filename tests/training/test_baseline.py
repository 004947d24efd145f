from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.errors import CheckpointError, ConfigError, DataError, EvaluationError
from automl_prune.evaluation.score import score
from automl_prune.files import load_tensors, save_tensors
from automl_prune.models import resnet8
from automl_prune.seeding import seeded
from automl_prune.tasks import Task
from automl_prune.training.baseline import EpochReport, Training, one_cycle, train

CPU = torch.device("cpu")
SHORT = Training(epochs=3, learning_rate=0.1)


class WithDropout(nn.Module):
    """Randomness inside the model must survive a resume too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.2)
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(self.dropout(x))
        return logits


class Stop(Exception):  # noqa: N818  # not an error
    """Stands for an interruption at an arbitrary step."""


def equal(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_training_learns_digits_and_reports_progress(digits_task: Task) -> None:
    with seeded("learns"):
        model = resnet8(num_classes=10, in_channels=1, width=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    steps: list[tuple[int, int]] = []
    epochs: list[EpochReport] = []
    trained = train(
        model,
        digits_task,
        Training(epochs=6),
        seed=0,
        device=CPU,
        on_step=lambda *s: steps.append(s),
        on_epoch=epochs.append,
    )
    assert steps == [(step, 48) for step in range(1, 49)]
    assert [report.epoch for report in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < epochs[0].loss
    assert epochs[-1].val == score(trained, digits_task, "val", CPU)
    assert score(trained, digits_task, "test", CPU).value > 0.7
    assert not trained.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.is_contiguous() for parameter in trained.parameters())


def test_a_task_of_another_kind_is_trained_by_the_same_code(regression_task: Task) -> None:
    with seeded("regression"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
    trained = train(model, regression_task, Training(epochs=5, learning_rate=0.02), seed=0, device=CPU)
    before, after = (score(m, regression_task, "val", CPU).value for m in (model, trained))
    assert regression_task.metric.better(after, before / 2)


@pytest.mark.parametrize("stop_at", [3, 8, 9, 20])
def test_resumed_training_equals_uninterrupted_to_the_bit(
    digits_task: Task, tiny_resnet: nn.Module, tmp_path: Path, stop_at: int
) -> None:
    model = WithDropout(tiny_resnet)
    reference = train(model, digits_task, SHORT, seed=4, device=CPU)
    path = tmp_path / "training.safetensors"

    def stop(done: int, _: int) -> None:
        if done == stop_at:
            raise Stop

    with pytest.raises(Stop):
        train(model, digits_task, SHORT, seed=4, device=CPU, checkpoint=path, on_step=stop)
    assert path.exists() == (stop_at > 8)  # eight steps an epoch; the callback comes before the checkpoint
    steps: list[int] = []
    torch.rand(7)  # the global generator stands elsewhere after a resume
    resumed = train(
        model, digits_task, SHORT, seed=4, device=CPU, checkpoint=path, on_step=lambda done, _: steps.append(done)
    )
    assert steps[0] == (stop_at - 1) // 8 * 8 + 1
    assert equal(resumed, reference)
    finished = train(model, digits_task, SHORT, seed=4, device=CPU, checkpoint=path, on_step=stop)
    assert equal(finished, reference)  # nothing left to do


def test_seeds_matter_and_global_state_is_left_alone(digits_task: Task, tiny_resnet: nn.Module) -> None:
    one = Training(epochs=1)
    before = torch.random.get_rng_state()
    deterministic = torch.backends.cudnn.deterministic
    first = train(tiny_resnet, digits_task, one, seed=0, device=CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.backends.cudnn.deterministic == deterministic
    assert equal(first, train(tiny_resnet, digits_task, one, seed=0, device=CPU))
    assert not equal(first, train(tiny_resnet, digits_task, one, seed=1, device=CPU))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"recipe": Training(epochs=4)}, "recipe"),
        ({"width": 8}, "initial model"),
        ({"data": 1}, "data"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    digits_task: Task,
    regression_task: Task,
    tiny_resnet: nn.Module,
    tmp_path: Path,
    change: Mapping[str, Any],
    named: str,
) -> None:
    path = tmp_path / "training.safetensors"
    train(tiny_resnet, digits_task, Training(epochs=1), seed=0, device=CPU, checkpoint=path)
    content = path.read_bytes()
    model = resnet8(in_channels=1, width=8) if "width" in change else tiny_resnet
    task = regression_task if "data" in change else digits_task
    recipe = change.get("recipe", Training(epochs=1))
    with pytest.raises(CheckpointError, match=f"with a different {named};.*delete it"):
        train(model, task, recipe, seed=change.get("seed", 0), device=CPU, checkpoint=path)
    assert path.read_bytes() == content


def test_damaged_and_foreign_checkpoints_are_refused(digits_task: Task, tiny_resnet: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    train(tiny_resnet, digits_task, Training(epochs=1), seed=0, device=CPU, checkpoint=path)
    tensors, metadata = load_tensors(path)
    assert any(name.startswith("momentum.") for name in tensors)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        train(tiny_resnet, digits_task, Training(epochs=1), seed=0, device=CPU, checkpoint=path)
    save_tensors(path, tiny_resnet.state_dict())
    with pytest.raises(CheckpointError, match="no training checkpoint"):
        train(tiny_resnet, digits_task, Training(epochs=1), seed=0, device=CPU, checkpoint=path)
    del tensors["model.fc.weight"]
    save_tensors(path, tensors, metadata)
    with pytest.raises(CheckpointError, match=r"(?s)does not fit the model.*fc\.weight"):
        train(tiny_resnet, digits_task, Training(epochs=1), seed=0, device=CPU, checkpoint=path)


def test_a_training_split_without_a_batch_is_told(
    digits_task: Task, tiny_resnet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(digits_task), "batches", lambda *arguments, **options: [])
    with pytest.raises(DataError, match="the training split has no batch"):
        train(tiny_resnet, digits_task, SHORT, seed=0, device=CPU)


def test_a_loss_that_is_not_a_number_stops_with_step_and_fix(digits_task: Task, tiny_resnet: nn.Module) -> None:
    class Breaks(nn.Module):
        """Its fourth training step gives NaN."""

        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = tiny_resnet, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += self.training
            logits: torch.Tensor = self.inner(x)
            return logits * (float("nan") if self.calls == 4 else 1.0)

    with pytest.raises(EvaluationError, match=r"nan at step 4 .*lower training.learning_rate than 0.1 \(try 0.01\)"):
        train(Breaks(), digits_task, SHORT, seed=0, device=CPU)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (2.0, r"on average at steps 9 to 16, 3\.65.* at the first; .*try 0\.2"),
        (1e20, r"the loss is (inf|nan) at step 2 "),
    ],
)
def test_a_loss_that_explodes_stops_before_it_is_saved(
    regression_task: Task, tmp_path: Path, rate: float, message: str
) -> None:
    with seeded("explodes"):
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    recipe = Training(epochs=4, learning_rate=rate, momentum=0.5, weight_decay=0)
    path = tmp_path / "training.safetensors"
    with pytest.raises(EvaluationError, match=message):
        train(model, regression_task, recipe, seed=0, device=CPU, checkpoint=path)
    for tensor in load_tensors(path)[0].values() if path.exists() else ():
        assert torch.isfinite(tensor).all()


def test_one_cycle_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = [one_cycle(step, 100, 0.2, 0.3) for step in range(100)]
    assert rates[0] == pytest.approx(0.2 / 25)
    assert rates[30] == max(rates) == pytest.approx(0.2)
    assert rates == sorted(rates[:30]) + sorted(rates[30:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert one_cycle(0, 10, 0.2, 0.0) == 0.2


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}, {"momentum": 1.0}, {"warmup": -0.1},
        {"weight_decay": -1.0},
    ],
)  # fmt: skip
def test_impossible_recipes_are_told(wrong: dict[str, Any]) -> None:
    name, value = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=f"training.{name} is {value}"):
        Training(**wrong)


def test_training_without_momentum_works_and_resumes(digits_task: Task, tiny_resnet: nn.Module, tmp_path: Path) -> None:
    plain = Training(epochs=2, momentum=0.0)
    path = tmp_path / "training.safetensors"
    reports: list[EpochReport] = []

    def stop(report: EpochReport) -> None:
        reports.append(report)
        raise Stop

    with pytest.raises(Stop):
        train(tiny_resnet, digits_task, plain, seed=0, device=CPU, checkpoint=path, on_epoch=stop)
    assert len(reports) == 1
    resumed = train(tiny_resnet, digits_task, plain, seed=0, device=CPU, checkpoint=path)
    assert equal(resumed, train(tiny_resnet, digits_task, plain, seed=0, device=CPU))
