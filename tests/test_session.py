"""What a session prepares before it searches: the calibration and the ranking that its criteria need, once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from automl_prune.budget import Budget
from automl_prune.calibration import load_or_collect
from automl_prune.calibration.statistics import CalibrationSettings
from automl_prune.criteria import CriterionContext, score_groups
from automl_prune.evaluation import FineTuning, Recipe
from automl_prune.files import load_tensors
from automl_prune.session import Session
from automl_prune.space import Space
from automl_prune.tasks import Batches, Split, Task
from tests.views import Recorder

CPU = torch.device("cpu")


class Attending(nn.Module):
    """Two groups: one read by a convolution, one by a plain product of matrices, which is not calibrated."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.second = nn.Conv2d(4, 4, 1)
        self.projection = nn.Parameter(torch.linspace(-1, 1, 40).reshape(4, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (batch, 1, 8, 8) to logits (batch, 10)."""
        features = self.second(self.first(x).relu()).relu().mean((2, 3))
        logits: torch.Tensor = features @ self.projection
        return logits


def _prepare(
    model: nn.Module, task: Task, folder: Path, *criteria: str, finetuning: FineTuning | None = None
) -> tuple[Session, Recorder]:
    view = Recorder()
    session = Session.prepare(
        model,
        task,
        Budget(macs=0.5),
        Space(criteria=criteria),
        Recipe(64, finetuning),
        seed=3,
        device=CPU,
        view=view,
        calibration=folder / "calibration.safetensors",
        ranking=folder / "scores.safetensors",
    )
    return session, view


def test_criteria_of_weights_need_no_calibration(tiny_resnet: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    session, view = _prepare(tiny_resnet, digits_task, tmp_path, "l1")
    assert session.evaluator.calibration is None
    assert not list(tmp_path.iterdir())
    assert not [stage for stage in view.stages if stage.startswith("Calibrating")]


def test_what_criteria_need_is_collected_once(tiny_resnet: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    session, view = _prepare(tiny_resnet, digits_task, tmp_path, "obs", "taylor", "l1")
    assert [stage for stage in view.stages if stage.startswith("Calibrating")] == [
        "Calibrating",
        "Calibrating gradients",
    ]
    settings = CalibrationSettings(samples=64, seed=3)
    path = tmp_path / "calibration.safetensors"
    calibration = load_or_collect(path, tiny_resnet, digits_task, settings, device=CPU, gradients=True)
    context = CriterionContext.of(tiny_resnet, 3, calibration)
    for name in ("obs", "taylor", "l1"):
        for group, scores in score_groups(session.graph.groups, context, name).items():
            assert torch.equal(session.evaluator.scores[name][group], scores)
    assert {key.partition("|")[0] for key in load_tensors(tmp_path / "scores.safetensors")[0]} == {"obs", "taylor"}
    _, again = _prepare(tiny_resnet, digits_task, tmp_path, "obs", "taylor", "l1")
    assert not {"Calibrating", "Calibrating gradients", "Ranking channels by obs"} & set(again.stages)


def test_groups_that_cannot_be_ranked_as_asked_are_named(digits_task: Task, tmp_path: Path) -> None:
    session, view = _prepare(Attending(), digits_task, tmp_path, "obs", "l1")
    said = [message for message in view.said if "no layer with statistics" in message]
    assert said == ["1 groups are read by no layer with statistics; obs rank them by l1 (second)"]
    scores = session.evaluator.scores
    assert torch.equal(scores["obs"]["second"], scores["l1"]["second"])
    assert not torch.equal(scores["obs"]["first"], scores["l1"]["first"])


def test_all_candidates_are_fine_tuned_on_the_same_batches(
    tiny_resnet: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, _ = _prepare(tiny_resnet, digits_task, tmp_path, "l1", finetuning=FineTuning(steps=8))
    read, asked = [], []
    batches = type(digits_task).batches

    def watched(task: Task, split: Split, *, shuffle: int | None = None, augment: bool = False) -> Batches:
        read.append((split, shuffle, augment))
        return batches(task, split, shuffle=shuffle, augment=augment)

    monkeypatch.setattr(type(digits_task), "batches", watched)
    session.model.register_forward_hook(lambda module, *_: asked.append(module))  # copies of the model have it too
    seen = []
    for seed, share in ((1, 1.0), (2, 0.9)):
        read.clear()
        session.evaluate(session.projector.uniform("l1", share), seed)
        seen.append([entry for entry in read if entry[2]])
    assert seen[0] == seen[1] != []
    assert asked.count(session.model) == 8, "the teacher was asked more than once for the same batch"
