"""Sensitivity analysis of a configured model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_prune.config import Config
from automl_prune.criteria import CriterionContext
from automl_prune.dense import load_or_train
from automl_prune.evaluation import Evaluator, Recipe
from automl_prune.report.sensitivity import write_sensitivity
from automl_prune.sensitivity import RATIOS, Sensitivity, analyse
from automl_prune.session import calibrate, choose_device, rank, trace_and_prove
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task
from automl_prune.tasks.bounded import BoundedValidation
from automl_prune.view import Silent, View


def sensitivity(
    config: Config,
    run_dir: Path,
    *,
    criterion: str = "l1",
    ratios: Sequence[float] = RATIOS,
    samples: int | None = None,
    reconstruct: bool = True,
    view: View | None = None,
) -> Sensitivity:
    """Prune every channel group alone at several ratios and score the model without training, as cut and reconstructed.

    Resumes what ``run_dir`` holds of the same model, data, criterion and recipe.

    Args:
        config: Its dense model and data.
        run_dir: Results go to ``sensitivity/``, sensitivity.csv and sensitivity.html there.
        criterion: Ranks the channels of a group.
        ratios: Fractions of the channels to remove.
        samples: Validation samples to score with; by default all.
        reconstruct: Whether to measure once more with reconstructed layers.
        view: Where progress goes.

    Raises:
        ConfigError: An unknown criterion, or a ratio out of range.
    """
    view, device, directory = view or Silent(), choose_device(config.device), RunDirectory(run_dir)
    whole = config.build_task()
    task: Task = BoundedValidation(whole, samples) if samples is not None else whole
    model = load_or_train(config, whole, directory.baseline, view).to(device).eval()
    graph = trace_and_prove(model, whole, device, view)
    count, seed = config.evaluation.calibration_samples, config.search.seed
    recipes = {"norms recalibrated": Recipe(count)}
    if reconstruct:
        recipes["reconstructed and norms recalibrated"] = Recipe(count, reconstruct=True)
    most = list(recipes.values())[-1]
    calibration = calibrate(
        model, graph, whole, most, [criterion], directory.calibration, seed=seed, device=device, view=view
    )
    scores = rank(graph, CriterionContext.of(model, seed, calibration), [criterion], directory.scores, view)
    evaluators = {
        name: Evaluator(model, graph, task, scores, recipe, device, calibration) for name, recipe in recipes.items()
    }
    with view.stage("Pruning one group at a time") as stage:
        result = analyse(evaluators, criterion, ratios, folder=directory.sensitivity, on_step=stage)
    page = write_sensitivity(result, run_dir, config.name)
    view.say(f"Heat map: {page}; numbers: {page.with_suffix('.csv')}")
    return result
