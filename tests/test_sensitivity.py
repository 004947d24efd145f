from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from automl_prune.channels import ChannelGraph, prune
from automl_prune.criteria import CriterionContext, keep_best, score_groups
from automl_prune.errors import CheckpointError, ConfigError
from automl_prune.evaluation import Evaluation, Evaluator, FineTuning, Recipe, recalibrate, score
from automl_prune.evaluation.finetune import finetune
from automl_prune.files import tensors_digest, write_sealed
from automl_prune.models import resnet8
from automl_prune.seeding import seeded
from automl_prune.sensitivity import Sensitivity, analyse, kept, known_drops, stored
from automl_prune.tasks import Task

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(digits_task: Task) -> nn.Module:
    with seeded("sensitivity"):
        fresh = resnet8(num_classes=10, in_channels=1, width=4)
    return finetune(fresh, digits_task, FineTuning(60, 0.1, distillation=0), seed=0, device=CPU)


def evaluator(model: nn.Module, task: Task, samples: int = 128, criterion: str = "l1") -> Evaluator:
    graph = ChannelGraph.trace(model, task.example_inputs)
    scores = {criterion: score_groups(graph.groups, CriterionContext.of(model), criterion)}
    return Evaluator(model, graph, task, scores, Recipe(samples), CPU)


@pytest.fixture(scope="module")
def result(model: nn.Module, digits_task: Task) -> Sensitivity:
    return analyse({"plain": evaluator(model, digits_task)}, "l1", (0.75, 0.25))


def test_every_point_is_the_score_of_that_group_pruned_alone(
    model: nn.Module, digits_task: Task, result: Sensitivity
) -> None:
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    assert result.ratios == (0.25, 0.75)
    assert result.dense == score(model, digits_task, "val", CPU)
    ranked = score_groups(graph.groups, CriterionContext.of(model), "l1")
    for group in graph.groups:
        for ratio in (0.25, 0.75):
            keep = round(group.width * (1 - ratio))
            small = prune(model, graph.plan({group.name: keep_best(ranked[group.name], keep)}))
            recalibrate(small, digits_task, samples=128, device=CPU)
            expected = score(small, digits_task, "val", CPU)
            point = result.point("plain", group.name, ratio)
            assert (point.keep, point.score) == (keep, expected)
            assert result.drops("plain")[group.name][ratio] == result.dense.value - expected.value
    assert max(max(by.values()) for by in result.drops("plain").values()) > 0.1, "something must matter"


def test_a_drop_is_worse_whichever_way_the_metric_goes(regression_task: Task) -> None:
    with seeded("regression"):
        fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    net = finetune(fresh, regression_task, FineTuning(200, 0.02, distillation=0), seed=0, device=CPU)
    found = analyse({"plain": evaluator(net, regression_task)}, "l1", (0.9,))
    (by_ratio,) = found.drops("plain").values()
    assert by_ratio[0.9] > 0, "a higher error is a drop"


def test_what_was_measured_is_found_again_by_evaluators_that_train_too(
    model: nn.Module, digits_task: Task, result: Sensitivity, tmp_path: Path
) -> None:
    measuring = evaluator(model, digits_task)
    analyse({"plain": measuring}, "l1", (0.75, 0.25), folder=tmp_path)
    recipe = Recipe(128, FineTuning(5, 0.1))
    training = Evaluator(model, measuring.graph, digits_task, measuring.scores, recipe, CPU)
    found = known_drops(training, "l1", tmp_path)
    assert found == {
        group: {kept(result.widths[group], ratio): drop for ratio, drop in by.items()}
        for group, by in result.drops("plain").items()
    }
    assert known_drops(evaluator(model, digits_task, samples=64), "l1", tmp_path) == {}, "repaired in another way"
    (again,) = stored(tmp_path, tensors_digest(model.state_dict()), result.widths)
    assert again.drops("plain") == result.drops("plain")
    assert stored(tmp_path, "another model", result.widths) == ()


@pytest.mark.parametrize(
    ("width", "ratio", "expected"),
    [(64, 0.25, 48), (64, 0.9, 6), (4, 0.9, 1), (2, 0.1, 1), (16, 0.01, 15), (3, 0.5, 2)],
)
def test_kept_channels(width: int, ratio: float, expected: int) -> None:
    assert kept(width, ratio) == expected


def test_a_killed_analysis_goes_on_and_other_ratios_add_to_it(
    model: nn.Module, digits_task: Task, result: Sensitivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str] = []
    original = Evaluator.evaluate

    def counting(self: Evaluator, candidate: Any, *rest: Any) -> Evaluation:
        if len(evaluated) == 3:
            evaluated.append("killed")
            raise KeyboardInterrupt
        found = original(self, candidate, *rest)
        evaluated.append(candidate.digest)
        return found

    monkeypatch.setattr(Evaluator, "evaluate", counting)
    plain = {"plain": evaluator(model, digits_task)}
    with pytest.raises(KeyboardInterrupt):
        analyse(plain, "l1", (0.25, 0.75), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text())["content"]["points"]) == 3
    resumed = analyse(plain, "l1", (0.25, 0.75), folder=tmp_path)
    assert resumed == result
    assert len(evaluated) == 1 + len(result.points) == len(set(evaluated)), "nothing twice"
    more = analyse(plain, "l1", (0.25, 0.5, 0.75), folder=tmp_path)
    assert len(evaluated) == 1 + len(more.points)
    assert more.point("plain", "conv1", 0.25) == result.point("plain", "conv1", 0.25)
    before = len(evaluated)
    analyse({"plain": evaluator(model, digits_task, samples=64)}, "l1", (0.25,), folder=tmp_path)
    with torch.no_grad():
        other = resnet8(num_classes=10, in_channels=1, width=4).eval()
    analyse({"plain": evaluator(other, digits_task)}, "l1", (0.25,), folder=tmp_path)
    assert len(evaluated) == before + 2 * len(result.widths), "another recipe or model shares nothing"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_named(model: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    plain = {"plain": evaluator(model, digits_task)}
    analyse(plain, "l1", (0.5,), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(whole.replace('"samples": 128', '"samples": 129', 1))
    assert file.read_text() != whole
    with pytest.raises(CheckpointError, match=f"{file.name} is damaged"):
        analyse(plain, "l1", (0.5,), folder=tmp_path)
    write_sealed(file, {"points": []})
    with pytest.raises(CheckpointError, match=f"{file.name} is no sensitivity analysis"):
        analyse(plain, "l1", (0.5,), folder=tmp_path)
    file.write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        analyse(plain, "l1", (0.5,), folder=tmp_path)


@pytest.mark.parametrize("ratios", [(), (0.0,), (1.0,), (0.5, -0.1), (float("nan"),)])
def test_impossible_ratios_are_told(model: nn.Module, digits_task: Task, ratios: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="prune ratios are"):
        analyse({"plain": evaluator(model, digits_task)}, "l1", ratios)


def test_training_evaluators_are_refused(model: nn.Module, digits_task: Task) -> None:
    graph = ChannelGraph.trace(model, digits_task.example_inputs)
    trains = Evaluator(model, graph, digits_task, {"l1": {}}, Recipe(64, FineTuning(1)), CPU)
    with pytest.raises(ConfigError, match="without training"):
        analyse({"plain": trains}, "l1")
