"""Compressing without training, on digits: what comes out is verified, within the budget, and better than cutting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import automl_prune as ap
from automl_prune.compression import PLAIN, WIDTHS, Compressed, compress, plan_within
from automl_prune.config import Config
from automl_prune.costs import count_macs
from automl_prune.costs.latency import LatencySettings
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.evaluation import FineTuning, finetune, score
from automl_prune.files import read_json, tensors_digest
from automl_prune.models import resnet8
from automl_prune.sections import EvaluationSection
from automl_prune.seeding import seeded
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task
from automl_prune.tasks.classification import Classification
from automl_prune.view import Silent
from tests.test_pricing import Workshop, prepare

CPU = torch.device("cpu")
FEW = EvaluationSection(calibration_samples=256)


def factory() -> nn.Module:
    return resnet8(num_classes=10, in_channels=1, width=8)


@pytest.fixture(scope="module")
def trained(digits_task: Task) -> nn.Module:
    with seeded("one shot"):
        model = factory()
    return finetune(model, digits_task, FineTuning(100, 0.1, distillation=0), seed=0, device=CPU)


def _compress(model: nn.Module, task: Task, **options: Any) -> Compressed:
    defaults: dict[str, Any] = {
        "criterion": "obs", "widths": "uniform", "space": Space(), "recipe": FEW.recipe(), "directory": None,
        "factory": None, "latency": LatencySettings(), "seed": 0, "device": "cpu", "view": Silent(),
    }  # fmt: skip
    return compress(model, task, ap.Budget(macs=0.4), **{**defaults, **options})


@pytest.mark.parametrize("widths", WIDTHS)
def test_the_result_is_within_budget_and_limits(trained: nn.Module, digits_task: Task, widths: str) -> None:
    space = Space(round_to=2, min_width=4)
    result = _compress(trained, digits_task, widths=widths, space=space, criterion="l1")
    dense = count_macs(trained, (digits_task.example_inputs[0][:1],))
    assert count_macs(result.model, (digits_task.example_inputs[0][:1],)) <= 0.4 * dense
    assert all(width >= 4 and width % 2 == 0 for width in result.plan.widths.values())
    assert list(result.rows) == ["dense", PLAIN, f"{widths} l1"]
    assert result.rows["dense"].costs["macs"].ratio == 1
    assert score(result.model, digits_task, "test", CPU) == result.rows[f"{widths} l1"].test


def test_it_beats_cutting_and_comes_back_from_its_files(trained: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    before = tensors_digest(trained.state_dict())
    small = ap.one_shot(
        trained, digits_task, ap.Budget(macs=0.4), evaluation=FEW, run_dir=tmp_path, factory=factory, device="cpu"
    )
    output = tmp_path / "models" / "one-shot-obs-uniform"
    again = ap.load_pruned(output, factory())
    assert tensors_digest(again.state_dict()) == tensors_digest(small.state_dict())
    assert tensors_digest(trained.state_dict()) == before
    manifest = read_json(output / "manifest.json")
    assert manifest["origin"] == "one-shot, uniform widths by obs"
    assert manifest["accuracies"]["onnxruntime"] == pytest.approx(
        score(small, digits_task, "test", CPU).value, abs=0.01
    )
    assert RunDirectory(tmp_path).calibration.is_file()
    result = _compress(trained, digits_task)
    assert result.directory is None
    gain = result.rows["uniform obs"].val.value - result.rows[PLAIN].val.value
    assert gain > 0.3


def test_a_configuration_reconstructs_unless_it_says_no(tmp_path: Path) -> None:
    path = Path(__file__).parents[1] / "experiments" / "digits" / "config.yaml"
    assert Config.load(path).evaluation.recipe().reconstruct
    assert not Config.load(path, ["evaluation.sequential=false"]).evaluation.recipe().sequential
    both = Config.load(path).evaluation.recipe()
    assert (both.reconstruct, both.sequential) == (True, True)
    off = Config.load(path, ["evaluation.reconstruct=false"]).evaluation.recipe()
    assert (off.reconstruct, off.sequential) == (False, False)


def test_what_cannot_be_is_refused(trained: nn.Module, digits_task: Task) -> None:
    with pytest.raises(ConfigError, match="'globl'; did you mean 'global'"):
        _compress(trained, digits_task, widths="globl")
    with pytest.raises(ConfigError, match="obz"):
        ap.one_shot(trained, digits_task, ap.Budget(macs=0.4), "obz", device="cpu")
    with pytest.raises(BudgetError, match="cannot be reached"):
        ap.one_shot(trained, digits_task, ap.Budget(macs=0.001), "l1", device="cpu")


def test_widths_that_measure_over_budget_are_narrowed_until_they_do_not(
    tiny_resnet: nn.Module, digits_task: Classification
) -> None:
    workshop = Workshop()
    session = prepare(tiny_resnet, digits_task, ap.Budget(latency=0.6), None, workshop)
    predicted = session.evaluator.plan(session.projector.uniform("l1"))
    workshop.meters[-1].slower = 1.3  # than when the predictor was fitted
    assert session.evaluator.costs(predicted)["latency"].value > session.limits["latency"]
    narrowed = plan_within(session, "l1", "uniform")
    assert session.evaluator.costs(narrowed)["latency"].value <= session.limits["latency"]
    workshop.meters[-1].slower = 100
    with pytest.raises(BudgetError, match=r"still measure .* latency after 5 tries"):
        plan_within(session, "l1", "uniform")
