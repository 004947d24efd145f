"""The main job through the Python interface, on real digits: search, resume, export, read back."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import automl_prune as ap
from automl_prune import api
from automl_prune.costs import count_macs
from automl_prune.errors import BudgetError, ModelError, StudyError
from automl_prune.evaluation import Evaluation, Evaluator, FineTuning, finetune, score
from automl_prune.evaluation.evaluator import Trained
from automl_prune.models import resnet8
from automl_prune.sections import EvaluationSection
from automl_prune.seeding import seeded
from automl_prune.session import choose_device
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task

CPU = torch.device("cpu")
FAST = EvaluationSection(
    calibration_samples=128, finetune_steps=4, learning_rate=0.01, finalists=1, finetune_epochs=1, seeds=2
)


def factory() -> nn.Module:
    return resnet8(num_classes=10, in_channels=1, width=4)


@pytest.fixture(scope="module")
def trained(digits_task: Task) -> nn.Module:
    with seeded("api"):
        model = factory()
    recipe = FineTuning(steps=60, learning_rate=0.1, distillation=0)
    return finetune(model, digits_task, recipe, seed=0, device=CPU)


def _search(model: nn.Module, task: Task, run_dir: Path, trials: int = 4, macs: float = 0.5) -> api.SearchResult:
    return ap.search(
        model=model,
        task=task,
        budget=ap.Budget(macs=macs),
        run_dir=run_dir,
        n_trials=trials,
        factory=factory,
        evaluation=FAST,
        device="cpu",
    )


@pytest.fixture(scope="module")
def result(trained: nn.Module, digits_task: Task, tmp_path_factory: pytest.TempPathFactory) -> api.SearchResult:
    return _search(trained, digits_task, tmp_path_factory.mktemp("search") / "run")


def test_every_trial_and_row_is_within_the_budget(result: api.SearchResult) -> None:
    limit = result.record.context.limits["macs"]
    evaluations = [trial.evaluation for trial in result.record.trials]
    assert len(evaluations) == 4
    assert all(e is not None and e.costs["macs"].value <= limit for e in evaluations)
    assert result.front
    assert all(row.test is not None and row.test.seeds == 2 for row in result.front)
    assert [trial.origin for trial in result.record.trials[:2]] == ["uniform obs", "uniform l1"]
    assert {trial.origin for trial in result.record.trials[2:]} == {"search"}


def test_the_best_baseline_is_a_finalist_too(result: api.SearchResult) -> None:
    origins = {t.number: t.origin for t in result.record.trials}
    assert any(origins[finalist.trial] != "search" for finalist in result.record.finalists)


def test_exported_models_restore_and_score_as_recorded(result: api.SearchResult, digits_task: Task) -> None:
    exported = dict(RunDirectory(result.run_dir).exported())
    assert set(exported) == {finalist.trial for finalist in result.record.finalists}
    for trial, directory in exported.items():
        small = ap.load_pruned(directory, factory())
        manifest = json.loads((directory / "manifest.json").read_text())
        finalist = next(f for f in result.record.finalists if f.trial == trial)
        best = max(finalist.runs, key=lambda run: run.val.value)
        assert score(small, digits_task, "test", CPU).value == best.test.value
        assert count_macs(small, digits_task.example_inputs) == manifest["costs"]["macs"]["value"]
        assert len({manifest["accuracies"][way] for way in ("torch", "reloaded", "onnxruntime")}) == 1


def test_the_run_directory_holds_what_is_promised(result: api.SearchResult) -> None:
    names = {path.name for path in result.run_dir.iterdir()}
    assert {"study.journal", "baseline.safetensors", "front.csv", "front.json", "models"} <= names
    assert {"report.html", "summary.md"} <= names
    assert not list(result.run_dir.rglob("*.tmp"))
    assert not (result.run_dir / "models" / ".finalists").exists()
    assert len(pd.read_csv(result.run_dir / "front.csv")) == len(result.front)


def test_best_respects_a_budget(result: api.SearchResult) -> None:
    cheapest = min(row.costs["macs"].ratio for row in result.front)
    found = result.best(macs=cheapest + 1e-9)
    assert found is not None
    assert found.costs["macs"].ratio == cheapest
    assert result.best(macs=cheapest / 2) is None


def test_the_same_call_again_repeats_nothing_and_more_trials_go_on(
    result: api.SearchResult, trained: nn.Module, digits_task: Task
) -> None:
    journal = (result.run_dir / "study.journal").read_bytes()
    again = _search(trained, digits_task, result.run_dir)
    assert again.front == result.front
    assert (result.run_dir / "study.journal").read_bytes() == journal


def test_another_model_or_budget_is_refused_with_what_differs(
    result: api.SearchResult, trained: nn.Module, digits_task: Task
) -> None:
    with pytest.raises(StudyError, match=r"budget|limits"):
        _search(trained, digits_task, result.run_dir, macs=0.4)
    with seeded("another"):
        other = factory()
    with pytest.raises(StudyError, match="model"):
        _search(other, digits_task, result.run_dir)


def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    result: api.SearchResult,
    trained: nn.Module,
    digits_task: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = 0
    original = Evaluator.evaluate

    def interrupting(self: Evaluator, *args: Any) -> Evaluation:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr("automl_prune.evaluation.evaluator.Evaluator.evaluate", interrupting)
        with pytest.raises(KeyboardInterrupt):
            _search(trained, digits_task, tmp_path / "run")
    assert "2 of 4 trials finished" in api.status(tmp_path / "run").in_words()
    resumed = _search(trained, digits_task, tmp_path / "run")
    assert [t.point for t in resumed.record.trials] == [t.point for t in result.record.trials]
    assert [t.evaluation and t.evaluation.score for t in resumed.record.trials] == [
        t.evaluation and t.evaluation.score for t in result.record.trials
    ]
    assert [(row.trial, row.val, row.test) for row in resumed.front] == [
        (row.trial, row.val, row.test) for row in result.front
    ]


def test_finalists_go_on_in_the_middle_after_an_interruption(
    result: api.SearchResult, trained: nn.Module, digits_task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[str, int, int]] = []
    original = Evaluator.finalist

    def watched(
        self: Evaluator, candidate: Any, recipe: Any, seed: int, checkpoint: Any, on_step: Callable[[int, int], None]
    ) -> Trained:
        def step(done: int, total: int) -> None:
            taken.append((candidate.digest, seed, done))
            if len(taken) == 12:  # 8 steps each: the middle of the second run
                signal.raise_signal(signal.SIGINT)
            on_step(done, total)

        return original(self, candidate, recipe, seed, checkpoint, step)

    monkeypatch.setattr("automl_prune.evaluation.evaluator.Evaluator.finalist", watched)
    with pytest.raises(KeyboardInterrupt):
        _search(trained, digits_task, tmp_path / "run")
    done = _search(trained, digits_task, tmp_path / "run")
    assert len(taken) == len(set(taken)) == 8 * sum(len(f.runs) for f in done.record.finalists)
    for mine, whole in zip(done.record.finalists, result.record.finalists, strict=True):
        assert [(r.val, r.test) for r in mine.runs] == [(r.val, r.test) for r in whole.runs]
    assert not (tmp_path / "run" / "models" / ".finalists").exists()


def test_a_renamed_run_directory_is_still_the_same_study(
    result: api.SearchResult, trained: nn.Module, digits_task: Task, tmp_path: Path
) -> None:
    shutil.copytree(result.run_dir, tmp_path / "renamed")
    again = _search(trained, digits_task, tmp_path / "renamed")
    assert again.record.trials == result.record.trials
    with pytest.raises(StudyError, match="differs"):
        _search(trained, digits_task, tmp_path / "renamed", macs=0.4)


def test_a_database_may_hold_several_studies(trained: nn.Module, digits_task: Task, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ap.search(
            model=trained,
            task=digits_task,
            budget=ap.Budget(macs=0.5),
            run_dir=tmp_path / name,
            n_trials=1,
            evaluation=EvaluationSection(calibration_samples=64, finetune_steps=0, finalists=1, seeds=1),
            device="cpu",
            storage=f"sqlite:///{tmp_path / 'studies.db'}",
        )
        assert len(api.read(tmp_path / name, f"sqlite:///{tmp_path / 'studies.db'}").finalists) == 1


def test_report_and_front_are_rebuilt_from_storage_alone(result: api.SearchResult) -> None:
    for name in ("report.html", "front.csv", "front.json"):
        (result.run_dir / name).unlink()
    assert api.report(result.run_dir)[0].stat().st_size > 100_000
    record, rows = api.front(result.run_dir)
    assert rows == list(result.front)
    assert "study run: 4 of 4 trials finished" in api.status(result.run_dir).in_words()
    assert api.verdict(record)


def test_reading_a_directory_without_a_study_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="holds no study"):
        api.front(tmp_path)


def test_an_unreachable_budget_names_the_reachable_minimum(
    trained: nn.Module, digits_task: Task, tmp_path: Path
) -> None:
    with pytest.raises(BudgetError, match="reach"):
        _search(trained, digits_task, tmp_path / "run", macs=0.001)


def test_a_model_without_prunable_channels_says_why(digits_task: Task, tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(ModelError, match="output"):
        _search(flat, digits_task, tmp_path / "run")


def test_devices_are_checked() -> None:
    assert choose_device("cpu") == CPU
    with pytest.raises(ModelError, match="'nonsense'"):
        choose_device("nonsense")
