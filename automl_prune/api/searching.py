"""Search for the best models under a budget, from Python or from a configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from automl_prune.api.launching import Team, open_to_workers, run_workers
from automl_prune.api.reading import best_row, study_name, write_results
from automl_prune.api.watching import Watcher
from automl_prune.budget import Budget
from automl_prune.candidate import Candidate
from automl_prune.config import Config, EvaluationSection, redacted
from automl_prune.dense import load_or_train
from automl_prune.errors import ConfigError, StudyError
from automl_prune.files import save_tensors, write_text
from automl_prune.finalists import choose, export_finalist, train_finalist
from automl_prune.joining import in_words
from automl_prune.learning_rate import finalist_recipe
from automl_prune.report import FrontRow, front_table
from automl_prune.sensitivity import known_drops
from automl_prune.session import Session, choose_device, environment
from automl_prune.space import Space
from automl_prune.study.baselines import Baseline, Make, at_several_costs
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import Point, StudyContext, StudyRecord
from automl_prune.study.runner import read_study, run_study, start_study
from automl_prune.study.spec import Event, StudySpec
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.tasks import Task
from automl_prune.view import Silent, View
from automl_prune.width_errors import errors_of_drops
from automl_prune.yaml_file import to_yaml


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search leaves.

    Attributes:
        record: The whole study.
        front: The finalists' front, in ascending order of cost.
        run_dir: Where the models, the front and the report lie.
    """

    record: StudyRecord
    front: tuple[FrontRow, ...]
    run_dir: Path

    def best(self, **budget: float | str) -> FrontRow | None:
        """The row with the best validation score within a budget, e.g. ``best(macs=0.4)``; None if there is none."""
        return best_row(self.record, self.front, Budget(**budget) if budget else None)


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
        space: What is searched; by default criterion, target cost, importance exponent and a residual per group.
        evaluation: How candidates and finalists are judged.
        strategy: Registered name of the search strategy.
        seed: Of everything random.
        device: ``auto`` or a torch device.
        storage: URL of a database; by default a journal file in ``run_dir``.
        config: What to record as the study's configuration, without its secrets.
        workers: How many processes search, and on what; more than one build model and data anew, and need ``config``.
        view: Where progress goes.

    Raises:
        BudgetError: The budget cannot be reached.
        StudyError: ``run_dir`` holds another study; the message lists what differs.
        ModelError: The model cannot run or be pruned.
    """
    view, evaluation, directory = view or Silent(), evaluation or EvaluationSection(), RunDirectory(Path(run_dir))
    team = Team(workers) if isinstance(workers, int) else workers
    launcher = team.launcher()
    if launcher is not None and not config:
        raise ConfigError(
            f"{team.workers} workers are processes that build the model and the data anew, which needs a "
            "configuration; give config, or start the search from a config.yaml"
        )
    place = choose_device(device)
    recipe, space = evaluation.recipe(), space or Space()
    directory.sweep()
    opened = open_storage(storage, directory.path)
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
    )
    if not directory.baseline.is_file():
        save_tensors(directory.baseline, session.model.state_dict())
    identity = session.identity(strategy=strategy)
    name = study_name(directory, storage)
    recorded = redacted(dict(config or {}))
    spec = replace(
        _spec(session, evaluation, identity, name, directory, recorded, strategy=strategy, seed=seed, trials=n_trials),
        patience=patience,
    )
    if recorded:
        start_study(spec, opened)
        open_to_workers(team, spec, opened, directory)
    if launcher is not None and config:
        run_workers(launcher, spec, opened, view, url=storage, run_dir=directory.path, config=config)
        record = read_study(opened, name)
    else:
        record = _run(session, spec, opened, view)
    if record.stop is not None:
        view.say(record.stop.sentence(record.requested))
    rebuild = factory or partial(copy.deepcopy, session.model.cpu())
    session.model.to(place)
    chosen = choose(record, evaluation.finalists)
    for trial in chosen:
        finetuning = finalist_recipe(evaluation, session, opened, record, chosen[0], directory, name, view=view)
        train_finalist(session, opened, record, trial, finetuning, evaluation.seeds, directory, name, view=view)
        record = read_study(opened, name)
        export_finalist(session, record, trial, finetuning, rebuild, directory, view=view)
    write_results(record, directory)
    return SearchResult(record, tuple(front_table(record)), directory.path)


def search_config(
    config: Config,
    run_dir: Path,
    *,
    trials: int | None = None,
    storage: str | None = None,
    workers: int | Team = 1,
    view: View | None = None,
) -> SearchResult:
    """``search`` as a configuration says; the resolved configuration is written into the run directory."""
    view, directory = view or Silent(), RunDirectory(run_dir)
    task, space = config.build_task(), config.load_space()
    model = load_or_train(config, task, directory.baseline, view)
    if not directory.config.is_file():
        write_text(directory.config, to_yaml(config.resolved()))
    return search(
        model=model,
        task=task,
        budget=config.parsed_budget(),
        run_dir=run_dir,
        n_trials=trials or config.search.trials,
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
        view=view,
    )


def _spec(
    session: Session,
    evaluation: EvaluationSection,
    identity: Mapping[str, Any],
    name: str,
    directory: RunDirectory,
    config: Mapping[str, Any],
    *,
    strategy: str,
    seed: int,
    trials: int,
) -> StudySpec:
    graph, projector = session.graph, session.projector
    context = StudyContext(
        name=directory.path.resolve().name,
        config=config,
        metric=session.task.metric,
        cost=next(iter(session.limits)),
        limits=session.limits,
        dense_costs=graph.dense_costs,
        dense_val=session.dense_val,
        dense_test=session.dense_test,
        group_widths=graph.widths,
        skipped=tuple((s.name, s.width, s.reason) for s in graph.skipped),
        environment=environment(session.device),
    )
    return StudySpec(
        name=name,
        context=context,
        identity=identity,
        parameters=projector.parameters,
        strategy=strategy,
        seed=seed,
        requested=trials,
        baselines=_baselines(session, directory),
        attempts=evaluation.attempts,
        device=str(session.device),
        promotion=evaluation.promotion(),
        network=projector.network(),
    )


def _baselines(session: Session, directory: RunDirectory) -> tuple[Baseline, ...]:
    """What the search has to beat.

    Uniform widths by every criterion; by the first one widths by global ranking, and greedy and knapsack ones over
    the errors of its scores; where ``automl-prune sensitivity`` has measured a criterion in this run directory,
    greedy and knapsack widths over the measured drops too.
    """
    projector, first = session.projector, session.space.criteria[0]

    def kind(propose: Callable[[str, float], Candidate], criterion: str) -> Make:
        def make(share: float) -> tuple[Point, Candidate | None]:
            candidate = propose(criterion, share)
            point = projector.point_near(candidate, share)
            return point, None if projector.candidate(point) == candidate else candidate

        return make

    kinds = {f"uniform {criterion}": kind(projector.uniform, criterion) for criterion in session.space.criteria}
    for name, propose in (
        ("global ranking", projector.ranked),
        ("greedy", projector.greedy),
        ("knapsack", projector.knapsack),
    ):
        kinds[f"{name} {first}"] = kind(propose, first)
    for criterion in session.space.criteria:
        drops = known_drops(session.evaluator, criterion, directory.sensitivity)
        if drops:
            errors = errors_of_drops(drops, session.graph.widths)
            kinds[f"sensitivity-greedy {criterion}"] = kind(partial(projector.greedy, errors=errors), criterion)
            kinds[f"sensitivity-knapsack {criterion}"] = kind(partial(projector.knapsack, errors=errors), criterion)
    return at_several_costs(kinds, lowest=session.space.target_cost)


def _run(session: Session, spec: StudySpec, storage: StudyStorage, view: View) -> StudyRecord:
    with view.stage("Searching") as stage:
        watcher = Watcher(view, stage, _earlier(storage, spec.name))

        def on_event(event: Event) -> None:
            if said := in_words(event):
                view.say(said)
            if event.kind in ("complete", "reused", "failed"):
                watcher.look(read_study(storage, spec.name))

        evaluator = session.evaluator
        return run_study(
            spec, storage, session.projector.candidate, evaluator.evaluate, on_event, identify=evaluator.digest
        )


def _earlier(storage: StudyStorage, name: str) -> StudyRecord | None:
    """What earlier sessions left; None when there is nothing yet."""
    try:
        return read_study(storage, name)
    except StudyError:  # whatever else is wrong, running it will say
        return None
