"""Compress now, without any training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from automl_prune.api.preparing import keep_config
from automl_prune.budget import Budget
from automl_prune.compression import Compressed, Widths, compress
from automl_prune.config import Config
from automl_prune.costs.latency import LatencySettings
from automl_prune.dense import load_or_train
from automl_prune.evaluation import Recipe
from automl_prune.sections import EvaluationSection
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.tasks import Task
from automl_prune.view import Silent, View


def one_shot(
    model: nn.Module,
    task: Task,
    budget: Budget,
    criterion: str = "obs",
    *,
    widths: Widths = "uniform",
    space: Space | None = None,
    evaluation: EvaluationSection | None = None,
    sequential: bool = True,
    run_dir: Path | str | None = None,
    factory: Callable[[], nn.Module] | None = None,
    latency: LatencySettings | None = None,
    seed: int = 0,
    device: str = "auto",
    view: View | None = None,
) -> nn.Module:
    """The model within a budget, at once and without any training.

    Args:
        model: The trained dense model; moved to ``device`` in evaluation mode, its weights are not changed.
        task: Its data, loss and metric.
        budget: Hard bounds; as much of the first as possible is spent.
        criterion: Registered name; chooses the channels.
        widths: How many channels every group keeps.
        space: Its width limits are honoured (min_width, max_prune_ratio, round_to, exclude, bounds).
        evaluation: Samples for calibration, and whether to reconstruct; nothing else of it is used.
        sequential: Whether layers are reconstructed one after another: better, and slower by a forward pass.
        run_dir: Where the calibration is kept and the verified export goes (``models/one-shot-CRITERION-WIDTHS``);
            None writes nothing.
        factory: Builds the dense model anew, to check that exported files restore; by default copies ``model``.
        latency: How latency is measured, where the budget or the space asks for it.
        seed: Chooses the calibration's samples.
        device: ``auto`` or a torch device.
        view: Where progress goes.

    Returns:
        A new, smaller module in evaluation mode.

    Raises:
        ConfigError: An unknown criterion or way to choose widths.
        BudgetError: The budget cannot be reached.
        ModelError: The model cannot run or be pruned.
    """
    directory = RunDirectory(Path(run_dir)) if run_dir is not None else None
    return compress(
        model, task, budget, criterion, widths=widths, space=space or Space(),
        recipe=_recipe(evaluation or EvaluationSection(), sequential=sequential), directory=directory,
        factory=factory, latency=latency or LatencySettings(), seed=seed, device=device, view=view or Silent(),
    ).model  # fmt: skip


def one_shot_config(
    config: Config,
    run_dir: Path,
    *,
    criterion: str = "obs",
    widths: Widths = "uniform",
    sequential: bool = True,
    view: View | None = None,
) -> Compressed:
    """``one_shot`` as a configuration says; the resolved configuration is written into the run directory."""
    view, directory = view or Silent(), RunDirectory(run_dir)
    task, space = config.build_task(), config.load_space()
    model = load_or_train(config, task, directory.baseline, view)
    if not directory.config.is_file():  # a search's own stays
        keep_config(directory, config.resolved())
    return compress(
        model, task, config.parsed_budget(), criterion, widths=widths, space=space,
        recipe=_recipe(config.evaluation, sequential=sequential), directory=directory,
        factory=config.build_model, latency=config.latency.settings(), seed=config.search.seed, device=config.device,
        view=view,
    )  # fmt: skip


def _recipe(evaluation: EvaluationSection, *, sequential: bool) -> Recipe:
    recipe = evaluation.recipe()
    return replace(recipe, sequential=sequential and recipe.reconstruct)
