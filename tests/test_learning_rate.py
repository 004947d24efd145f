"""The finalists' learning rate is measured once, nothing is trained twice, and the report says what it rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import automl_prune as ap
from automl_prune import api
from automl_prune.errors import EvaluationError
from automl_prune.evaluation import Evaluator, FineTuning, finetune
from automl_prune.evaluation.evaluator import Trained
from automl_prune.files import load_tensors, read_json, tensors_digest, write_json
from automl_prune.models import resnet8
from automl_prune.sections import EvaluationSection
from automl_prune.seeding import seeded
from automl_prune.study.record import RateSweep, RateTrial
from automl_prune.tasks import Metric, Score, Task


@pytest.fixture(scope="module")
def trained(digits_task: Task) -> nn.Module:
    with seeded("learning rate"):
        model = resnet8(num_classes=10, in_channels=1, width=4)
    recipe = FineTuning(steps=40, learning_rate=0.1, distillation=0)
    return finetune(model, digits_task, recipe, seed=0, device=torch.device("cpu"))


def _search(model: nn.Module, task: Task, run_dir: Path, epochs: float = 0.5, finalists: int = 1) -> api.SearchResult:
    return ap.search(
        model=model,
        task=task,
        budget=ap.Budget(macs=0.5),
        run_dir=run_dir,
        n_trials=2,
        evaluation=EvaluationSection(
            calibration_samples=64, finetune_steps=0, finalists=finalists, finetune_epochs=epochs, seeds=2
        ),
        space=ap.Space(criteria=("l1",)),
        device="cpu",
    )


class Counting:
    """Counts the finalists' fine-tunings by learning rate; interrupts one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, interrupt: int = 0) -> None:
        self.rates: list[float] = []
        original = Evaluator.finalist

        def counting(evaluator: Evaluator, candidate: Any, recipe: FineTuning, *args: Any) -> Trained:
            self.rates.append(recipe.learning_rate)
            if len(self.rates) == interrupt:
                raise KeyboardInterrupt
            return original(evaluator, candidate, recipe, *args)

        monkeypatch.setattr("automl_prune.evaluation.evaluator.Evaluator.finalist", counting)


def test_it_is_measured_once_and_the_winner_is_the_first_run(
    trained: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted = Counting(monkeypatch, interrupt=3)
    with pytest.raises(KeyboardInterrupt):
        _search(trained, digits_task, tmp_path)
    assert interrupted.rates == [0.01, 0.03, 0.1]
    monkeypatch.undo()
    resumed = Counting(monkeypatch)
    result = _search(trained, digits_task, tmp_path)
    sweep = result.record.sweep
    assert sweep is not None
    assert [entry.rate for entry in sweep.tried] == [0.01, 0.03, 0.1]
    scores = [entry.val.value for entry in sweep.tried if entry.val]
    assert sweep.rate == sweep.tried[scores.index(max(scores))].rate
    later = 2 * len(result.record.finalists) - 1
    assert resumed.rates == [0.1, *[sweep.rate] * later], "the two finished runs are not done again"
    measured = next(f for f in result.record.finalists if f.trial == sweep.trial)
    assert measured.runs[0].val.value == max(scores)
    assert not (tmp_path / "models" / ".finalists").exists()
    assert "Learning rate of the finalists" in (tmp_path / "report.html").read_text()
    again = Counting(monkeypatch)
    assert _search(trained, digits_task, tmp_path).record == result.record
    assert again.rates == []


def test_a_rate_that_diverges_is_passed_over(
    trained: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("automl_prune.learning_rate.RATES", (0.01, 1e30))
    sweep = _search(trained, digits_task, tmp_path / "one", epochs=1).record.sweep
    assert sweep is not None
    assert sweep.rate == 0.01
    assert sweep.tried[1].val is None
    assert "1e+30: diverged" in sweep.sentence(digits_task.metric)
    monkeypatch.setattr("automl_prune.learning_rate.RATES", (1e29, 1e30))
    with pytest.raises(EvaluationError, match="fails at every learning rate"):
        _search(trained, digits_task, tmp_path / "all", epochs=1)


def test_a_finalist_out_of_memory_is_recorded_and_the_others_go_on(
    trained: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Evaluator.finalist
    too_large: list[Any] = []

    def small_memory(evaluator: Evaluator, candidate: Any, *args: Any) -> Trained:
        if candidate == (too_large or [candidate])[0]:
            too_large.append(candidate)
            raise EvaluationError("out of memory on cuda:0")
        return original(evaluator, candidate, *args)

    monkeypatch.setattr("automl_prune.evaluation.evaluator.Evaluator.finalist", small_memory)
    record = _search(trained, digits_task, tmp_path, finalists=2).record
    (failed,) = record.failed_finalists
    assert failed.reason.endswith("out of memory on cuda:0")
    assert record.finalists
    assert failed.trial not in [finalist.trial for finalist in record.finalists]
    said = f"trial {failed.trial} failed as a finalist: {failed.reason}"
    assert said in api.status(tmp_path).in_words()
    assert "could not be fine-tuned as a finalist" in (tmp_path / "report.html").read_text()
    monkeypatch.undo()
    again = _search(trained, digits_task, tmp_path, finalists=2).record
    assert not again.failed_finalists
    assert failed.trial in [finalist.trial for finalist in again.finalists]


def test_records_survive_storage_and_say_what_they_rest_on() -> None:
    sweep = RateSweep(3, 100, (RateTrial(0.01, Score(0.9, 10, 0.1), 100, 2.0), RateTrial(0.1, None, 0, 0.0)), 0.01)
    assert RateSweep.from_json(sweep.to_json()) == sweep
    assert sweep.sentence(Metric("accuracy", higher_is_better=True, percent=True)) == (
        "Learning rate of the finalists: 0.01, by the validation accuracy of trial 3's first run of 100 steps "
        "(0.01: 90.00 %, 0.1: diverged)."
    )
    with pytest.raises(ValueError, match="not a sweep"):
        RateSweep.from_json({"trial": 1})


def test_finalists_of_other_settings_are_done_anew(
    trained: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _search(trained, digits_task, tmp_path)
    finalist = first.record.finalists[0]
    manifest = tmp_path / "models" / str(finalist.trial) / "manifest.json"
    before = read_json(manifest)
    counting = Counting(monkeypatch)
    assert _search(trained, digits_task, tmp_path).record.finalists == first.record.finalists
    assert not counting.rates, "nothing has changed"
    longer = _search(trained, digits_task, tmp_path, epochs=1.0)
    now = next(f for f in longer.record.finalists if f.trial == finalist.trial)
    assert now.runs[0].steps == 2 * finalist.runs[0].steps
    assert longer.record.sweep is not None
    assert longer.record.sweep.steps == now.runs[0].steps, "the rate is chosen for the new length"
    after = read_json(manifest)
    assert (before["finetuning"]["steps"], after["finetuning"]["steps"]) == (finalist.runs[0].steps, now.runs[0].steps)


def test_a_model_that_another_study_left_is_replaced(trained: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    finalist = _search(trained, digits_task, tmp_path).record.finalists[0]
    manifest = tmp_path / "models" / str(finalist.trial) / "manifest.json"
    right, weights = read_json(manifest), load_tensors(manifest.with_name("weights.safetensors"))[0]
    write_json(manifest, {**right, "candidate": {}, "accuracies": {}})
    _search(trained, digits_task, tmp_path)
    mended = read_json(manifest)
    assert mended["candidate"] == right["candidate"]
    again = load_tensors(manifest.with_name("weights.safetensors"))[0]
    assert tensors_digest(again) == tensors_digest(weights), "the same run, trained again"
