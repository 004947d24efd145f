"""The public functions. Each is a short script over the layers below; the command line calls the same ones."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from automl_prune.budget import Budget
from automl_prune.channels import ChannelGraph
from automl_prune.config import Config, EvaluationSection, load_weights
from automl_prune.dense import load_or_train, train_dense
from automl_prune.errors import ConfigError, StudyError
from automl_prune.files import save_tensors, write_text
from automl_prune.finalists import choose, export_finalist, train_finalist
from automl_prune.report import FrontRow, build_report, front_table, write_front
from automl_prune.report.answer import answer
from automl_prune.report.table import completed
from automl_prune.report.words import duration
from automl_prune.session import Session, choose_device, environment, trace_and_prove
from automl_prune.space import Space
from automl_prune.study.baselines import uniform_baselines
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyContext, StudyRecord
from automl_prune.study.runner import Event, StudySpec, read_study, run_study
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.tasks import Metric, Task
from automl_prune.view import Silent, Stage, View
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
        return _best(self.record, self.front, Budget(**budget) if budget else None)


def search(
    *,
    model: nn.Module,
    task: Task,
    budget: Budget,
    run_dir: Path | str,
    n_trials: int = 100,
    factory: Callable[[], nn.Module] | None = None,
    space: Space | None = None,
    evaluation: EvaluationSection | None = None,
    strategy: str = "tpe",
    seed: int = 0,
    device: str = "auto",
    storage: str | None = None,
    config: Mapping[str, Any] | None = None,
    view: View | None = None,
) -> SearchResult:
    """Search for the best models under a budget, or resume the search a run directory holds.

    Args:
        model: The trained dense model; moved to ``device`` in evaluation mode, its weights are not changed.
        task: Its data, loss and metric.
        budget: Hard bounds; the first metric is the front's cost.
        run_dir: Where everything is written.
        n_trials: Trials in all, baselines included.
        factory: Builds the dense model anew, to check that exported files restore; by default copies ``model``.
        space: What is searched; by default criterion, target cost, importance exponent and a residual per group.
        evaluation: How candidates and finalists are judged.
        strategy: Registered name of the search strategy.
        seed: Of everything random.
        device: ``auto`` or a torch device.
        storage: URL of a database; by default a journal file in ``run_dir``.
        config: What to record as the study's configuration.
        view: Where progress goes.

    Raises:
        BudgetError: The budget cannot be reached.
        StudyError: ``run_dir`` holds another study; the message lists what differs.
        ModelError: The model cannot run or be pruned.
    """
    view, evaluation, directory = view or Silent(), evaluation or EvaluationSection(), RunDirectory(Path(run_dir))
    place = choose_device(device)
    recipe, space = evaluation.recipe(), space or Space()
    opened = open_storage(storage, directory.path)
    session = Session.prepare(model, task, budget, space, recipe, seed=seed, device=place, view=view)
    if not directory.baseline.is_file():
        save_tensors(directory.baseline, session.model.state_dict())
    identity = session.identity(strategy=strategy)
    name = _study_name(directory, storage)
    spec = _spec(session, identity, name, directory, config or {}, strategy=strategy, seed=seed, trials=n_trials)
    record = _run(session, spec, opened, task.metric, view)
    finetuning = evaluation.finalist(task)
    rebuild = factory or partial(copy.deepcopy, session.model.cpu())
    session.model.to(place)
    for trial in choose(record, evaluation.finalists):
        train_finalist(session, opened, record, trial, finetuning, evaluation.seeds, directory, name, view=view)
        record = read_study(opened, name)
        export_finalist(session, record, trial, finetuning, rebuild, directory, view=view)
    _write_results(record, directory)
    return SearchResult(record, tuple(front_table(record)), directory.path)


def search_config(
    config: Config, run_dir: Path, *, trials: int | None = None, storage: str | None = None, view: View | None = None
) -> SearchResult:
    """``search`` as a configuration says; the resolved configuration is written into the run directory."""
    view, directory = view or Silent(), RunDirectory(run_dir)
    task, space = config.build_task(), config.load_space()
    model = load_or_train(config, task, directory.baseline, view)
    resolved = config.resolved()
    if not directory.config.is_file():
        write_text(directory.config, to_yaml(resolved))
    return search(
        model=model,
        task=task,
        budget=config.parsed_budget(),
        run_dir=run_dir,
        n_trials=trials or config.search.trials,
        factory=config.build_model,
        space=space,
        evaluation=config.evaluation,
        strategy=config.search.strategy,
        seed=config.search.seed,
        device=config.device,
        storage=storage,
        config=resolved,
        view=view,
    )


def _study_name(directory: RunDirectory, storage: str | None) -> str:
    """A journal holds one study, whatever its directory is renamed to; a database may hold many."""
    return "study" if storage is None else directory.path.resolve().name


def _spec(
    session: Session,
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
        baselines=uniform_baselines(session.space.criteria, projector.uniform_point, lowest=session.space.target_cost),
    )


def _run(session: Session, spec: StudySpec, storage: StudyStorage, metric: Metric, view: View) -> StudyRecord:
    best = _best_so_far(storage, spec.name, metric)
    with view.stage("Searching") as stage:

        def on_event(event: Event) -> None:
            _show_event(event, metric, spec, best, stage, view)

        return run_study(spec, storage, session.projector.candidate, session.evaluator.evaluate, on_event)


def _best_so_far(storage: StudyStorage, name: str, metric: Metric) -> list[float]:
    """The best score of earlier sessions, in a list of one; empty when there is none."""
    try:
        scores = [evaluation.score.value for _, evaluation in completed(read_study(storage, name))]
    except StudyError:  # the study is not there yet; whatever else is wrong, running it will say
        return []
    return sorted(scores, reverse=metric.higher_is_better)[:1]


def _show_event(event: Event, metric: Metric, spec: StudySpec, best: list[float], stage: Stage, view: View) -> None:
    if event.kind in ("notice", "failed", "lost", "handed_back"):
        where = "" if event.trial is None else f"trial {event.trial} {event.kind.replace('_', ' ')}"
        view.say(": ".join(part for part in (where, event.message) if part))
    if event.evaluation is not None:
        value = event.evaluation.score.value
        if not best or metric.better(value, best[0]):
            best[:] = [value]
    stage(event.finished, spec.requested, f"best {metric.name} {metric.show(best[0])}" if best else "")


def _write_results(record: StudyRecord, directory: RunDirectory) -> None:
    write_front(record, directory.path)
    build_report(record, directory.report)


def train(
    config: Config, output: Path | None, *, force: bool = False, command: str = "", view: View | None = None
) -> Path:
    """Train the dense model of a configuration and write its weights.

    Args:
        config: What to train.
        output: File to write; by default the configuration's ``model.weights``.
        force: Replace the file when it exists.
        command: Recorded in the file's metadata.
        view: Where progress goes.

    Returns:
        The file.

    Raises:
        ConfigError: The file exists and ``force`` is not given.
    """
    default = (
        Path(config.model.weights) if config.model.weights else Path("runs") / config.name / "baseline.safetensors"
    )
    path = output or default
    if path.exists() and not force:
        raise ConfigError(f"{path} exists; add --force to train again and replace it, or choose another --output")
    train_dense(config, config.build_task(), path, command=command, view=view or Silent())
    return path


@dataclass(frozen=True, slots=True)
class Profile:
    """The dense model's structure and costs."""

    graph: ChannelGraph
    reachable: Mapping[str, tuple[float, float]]

    def explain(self) -> str:
        """Tables for people."""
        lines = [self.graph.plan({}).explain(), ""]
        for metric, (least, _) in self.reachable.items():
            lines.append(f"reachable with the search space: {metric} from {least / self.graph.dense_costs[metric]:.1%}")
        lines += [f"protected: {s.name} ({s.width} channels): {s.reason}" for s in self.graph.skipped]
        return "\n".join(lines)


def profile(config: Config, view: View | None = None) -> Profile:
    """Trace and prove the configured model and say what it costs; its weights are not needed."""
    task, model = config.build_task(), config.build_model()
    weights = config.model.weights
    if weights and Path(weights).is_file():
        load_weights(model, Path(weights))
    device = choose_device(config.device)
    graph = trace_and_prove(model.to(device), task, device, view or Silent())
    limits = config.load_space().limits(graph.groups)
    low, high = ({name: getattr(limit, end) for name, limit in limits.items()} for end in ("low", "high"))
    return Profile(graph, {n: (float(p.at(low)), float(p.at(high))) for n, p in graph.polynomials.items()})


def read(run_dir: Path, storage: str | None = None) -> StudyRecord:
    """The record of the study a run directory holds.

    Raises:
        StudyError: There is none.
    """
    directory = RunDirectory(run_dir)
    if storage is None and not directory.journal.is_file():
        raise StudyError(
            f"{run_dir} holds no study ({directory.journal.name} is missing); give the run directory of a "
            "search, and --storage URL if it lives in a database"
        )
    return read_study(open_storage(storage, run_dir), _study_name(directory, storage))


def status(run_dir: Path, storage: str | None = None) -> str:
    """Trials by state, failures with reasons, the best so far and the time left, as text."""
    record = read(run_dir, storage)
    states = {state: sum(t.state == state for t in record.trials) for state in ("complete", "failed", "running")}
    finished = states["complete"] + states["failed"]
    lines = [
        f"study {record.context.name}: {finished} of {record.requested} trials finished "
        f"({states['complete']} complete, {states['failed']} failed), {states['running']} running, "
        f"{len(record.finalists)} finalists trained"
    ]
    seconds = [evaluation.seconds for _, evaluation in completed(record)]
    left = record.requested - finished
    if seconds and left > 0:
        lines.append(f"about {duration(left * sum(seconds) / len(seconds))} of one worker's time left for the search")
    lines += [f"trial {t.number} failed: {t.reason}" for t in record.trials if t.state == "failed"]
    return "\n".join([*lines, verdict(record)])


def front(run_dir: Path, storage: str | None = None) -> tuple[StudyRecord, list[FrontRow]]:
    """The study of a run directory and its front, the finalists' when there are any."""
    record = read(run_dir, storage)
    return record, front_table(record)


def verdict(record: StudyRecord) -> str:
    """The answer in two sentences: the best model against the dense one, and against the best baseline."""
    found = answer(record)
    return f"{found.headline}\n{found.verdict}"


def report(run_dir: Path, storage: str | None = None) -> Path:
    """Rebuild report.html and the front's tables from storage alone; returns the report's path."""
    directory = RunDirectory(run_dir)
    _write_results(read(run_dir, storage), directory)
    return directory.report


def export(
    run_dir: Path,
    *,
    trial: int | None = None,
    budget: Sequence[str] = (),
    storage: str | None = None,
    view: View | None = None,
) -> Path:
    """Export one model of a finished or running search; a trial that is no finalist is fine-tuned as one first.

    Args:
        run_dir: Of a search started from a configuration.
        trial: Which trial; or
        budget: ``"macs=0.4"`` each: the best model of the search within these.
        storage: URL of the study's database, if it is not in the run directory.
        view: Where progress goes.

    Returns:
        The model's directory.
    """
    if (trial is None) == (not budget):
        raise ConfigError("name what to export: either --trial N or --budget macs=0.4")
    view, directory = view or Silent(), RunDirectory(run_dir)
    record = read(run_dir, storage)
    number = _trial_within(record, budget) if trial is None else trial
    if number not in {t.number for t, _ in completed(record)}:
        known = ", ".join(str(t.number) for t, _ in completed(record)) or "none"
        raise StudyError(f"trial {number} is not a completed trial of this study; completed are: {known}")
    if not directory.config.is_file():
        raise ConfigError(f"{directory.config} is missing: the search was started from Python; export from there")
    config = Config.load(directory.config)
    task, space, evaluation = config.build_task(), config.load_space(), config.evaluation
    model = config.build_model()
    load_weights(model, directory.baseline)
    session = Session.prepare(
        model,
        task,
        config.parsed_budget(),
        space,
        evaluation.recipe(),
        seed=config.search.seed,
        device=choose_device(config.device),
        view=view,
    )
    opened, finetuning = open_storage(storage, run_dir), evaluation.finalist(task)
    name = _study_name(directory, storage)
    train_finalist(session, opened, record, number, finetuning, evaluation.seeds, directory, name, view=view)
    record = read_study(opened, name)
    export_finalist(session, record, number, finetuning, config.build_model, directory, view=view)
    _write_results(record, directory)
    return directory.model(number)


def _trial_within(record: StudyRecord, budget: Sequence[str]) -> int:
    bounds: dict[str, Any] = {}
    for text in budget:
        metric, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--budget {text!r}: write it as metric=value, e.g. macs=0.4")
        bounds[metric] = yaml.safe_load(value)
    row = _best(record, front_table(record), Budget.parse(bounds)) or _best(
        record, front_table(record, "search"), Budget.parse(bounds)
    )
    if row is None:
        raise StudyError(f"no model of this study is within {', '.join(budget)}; see 'automl-prune front'")
    return row.trial


def _best(record: StudyRecord, rows: Sequence[FrontRow], budget: Budget | None) -> FrontRow | None:
    limits = budget.limits(record.context.dense_costs) if budget else {}
    sign = 1 if record.context.metric.higher_is_better else -1
    fitting = [row for row in rows if all(row.costs[metric].value <= limit for metric, limit in limits.items())]
    return max(fitting, key=lambda row: sign * row.val.value, default=None)


__all__ = [
    "Profile", "SearchResult", "export", "front", "profile", "read", "report", "search", "search_config", "status",
    "train", "verdict",
]  # fmt: skip
