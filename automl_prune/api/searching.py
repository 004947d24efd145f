"""Search for the best models under a budget, from Python or from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from automl_prune.api.launching import Team, open_to_workers, run_workers
from automl_prune.api.preparing import keep_config
from automl_prune.api.reading import STORAGE_VARIABLE, storage_by_default, study_name
from automl_prune.api.running import SearchResult, conclude, run, study_spec
from automl_prune.budget import Budget
from automl_prune.config import Config
from automl_prune.costs.latency import LatencySettings
from automl_prune.dense import load_or_train
from automl_prune.errors import ConfigError
from automl_prune.evaluation import check_devices
from automl_prune.files import save_tensors, write_text
from automl_prune.finalists import Ahead
from automl_prune.pricing import measuring
from automl_prune.redaction import redacted
from automl_prune.sections import EvaluationSection
from automl_prune.session import Session, choose_device, known_identity
from automl_prune.space import Space
from automl_prune.study.directory import RunDirectory
from automl_prune.study.runner import check_study, read_study
from automl_prune.study.storage import open_storage
from automl_prune.tasks import Task
from automl_prune.view import Silent, View


def search(
    *,
    model: nn.Module,
    task: Task,
    budget: Budget,
    run_dir: Path | str,
    n_trials: int = 100,
    patience: int | None = 50,
    factory: Callable[[], nn.Module] | None = None,
    space: Space | None = None,
    evaluation: EvaluationSection | None = None,
    strategy: str = "tpe",
    seed: int = 0,
    device: str = "auto",
    storage: str | None = None,
    config: Mapping[str, Any] | None = None,
    workers: int | Team = 1,
    latency: LatencySettings | None = None,
    view: View | None = None,
) -> SearchResult:
    """Search for the best models under a budget, or resume the search a run directory holds.

    Args:
        model: The trained dense model; moved to ``device`` in evaluation mode, its weights are not changed.
        task: Its data, loss and metric.
        budget: Hard bounds; the first metric is the front's cost.
        run_dir: Where everything is written.
        n_trials: Trials in all, baselines included.
        patience: Trials of the search without growth of the front after which it stops early; None never does.
        factory: Builds the dense model anew, to check that exported files restore; by default copies ``model``.
        space: What is searched; by default criterion, target cost, allocation, importance exponent and a residual per
            group.
        evaluation: How candidates and finalists are judged.
        strategy: Registered name of the search strategy.
        seed: Of everything random.
        device: ``auto`` or a torch device.
        storage: URL of a database; by default the journal file in ``run_dir``, or where there is none yet what the
            environment variable ``AUTOML_PRUNE_STORAGE`` says, or else a new journal file.
        config: The study's configuration; recorded, and written into ``run_dir``, without its secrets.
        latency: How latency is measured, where the budget or the space asks for it.
        workers: How many processes search, and on what; more than one build model and data anew, and need ``config``.
        view: Where progress goes.

    Raises:
        BudgetError: The budget cannot be reached.
        StudyError: ``run_dir`` holds another study; the message lists what differs.
        ModelError: The model cannot run or be pruned.
    """
    view, evaluation, directory = view or Silent(), evaluation or EvaluationSection(), RunDirectory(Path(run_dir))
    given, storage = storage, storage_by_default(directory.path, storage)
    team = Team(workers) if isinstance(workers, int) else workers
    launcher = team.launcher(storage)
    if launcher is not None and not config:
        raise ConfigError(
            f"{team.workers} workers are processes that build the model and the data anew, which needs a "
            "configuration; give config, or start the search from a config.yaml"
        )
    place = choose_device(device)
    check_devices(evaluation.finalist_devices, evaluation.finalist_precision)
    recipe, space = evaluation.recipe(), space or Space()
    directory.sweep()
    opened, name = open_storage(storage, directory.path), study_name(directory, storage)
    check_study(opened, name, known_identity(model, task, space, recipe, strategy=strategy, seed=seed))
    if storage is not None:
        write_text(directory.elsewhere, f"{opened.location}\n")
    if storage != given:
        view.say(f"The study lives in {opened.location}, as the environment variable {STORAGE_VARIABLE} says")
    session = Session.prepare(
        model,
        task,
        budget,
        space,
        recipe,
        seed=seed,
        device=place,
        view=view,
        calibration=directory.calibration,
        ranking=directory.scores,
        latency=directory.latency,
        make_meter=measuring(latency or LatencySettings()),
    )
    if not directory.baseline.is_file():
        save_tensors(directory.baseline, session.model.state_dict())
    identity = session.identity(strategy=strategy)
    recorded = redacted(dict(config or {}))
    spec = replace(
        study_spec(session, evaluation, identity, name, directory, recorded, strategy=strategy, seed=seed),
        requested=n_trials,
        patience=patience,
    )
    invited: AbstractContextManager[Ahead | None] = nullcontext()
    if config:
        invited = open_to_workers(team, spec, session, opened, directory, view, url=storage, config=config)
    with invited as ahead:
        if config:  # the study has been started with it, or found to be its own
            keep_config(directory, recorded)
        if launcher is not None and config:
            run_workers(launcher, team.arguments(spec, storage, directory, config), spec, opened, view)
            record = read_study(opened, name)
        else:
            record = run(session, spec, opened, view)
        if record.stop is not None:
            view.say(record.stop.sentence(record.requested))
        return conclude(session, evaluation, opened, name, directory, record, factory, view=view, ahead=ahead)


def search_config(
    config: Config,
    run_dir: Path,
    *,
    trials: int | None = None,
    storage: str | None = None,
    workers: int | Team = 1,
    view: View | None = None,
) -> SearchResult:
    """``search`` as a configuration says; ``trials`` takes the place of its own number."""
    view, directory = view or Silent(), RunDirectory(run_dir)
    if trials is not None:
        config = config.model_copy(update={"search": config.search.model_copy(update={"trials": trials})})
    task, space = config.build_task(), config.load_space()
    model = load_or_train(config, task, directory.baseline, view)
    return search(
        model=model,
        task=task,
        budget=config.parsed_budget(),
        run_dir=run_dir,
        n_trials=config.search.trials,
        patience=config.search.patience,
        factory=config.build_model,
        space=space,
        evaluation=config.evaluation,
        strategy=config.search.strategy,
        seed=config.search.seed,
        device=config.device,
        storage=storage,
        config=config.model_dump(mode="json"),
        workers=workers,
        latency=config.latency.settings(),
        view=view,
    )
