"""What every search does, wherever its points come from: a study with baselines, then finalists, then results."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from torch import nn

from automl_prune.api.reading import best_row, verdict, write_results
from automl_prune.api.watching import Watcher, finalist_trained
from automl_prune.budget import Budget
from automl_prune.errors import EvaluationError, StudyError
from automl_prune.finalists import Ahead, Run, choose, differing, export_finalist, train_finalist
from automl_prune.joining import in_words
from automl_prune.learning_rate import finalist_recipe
from automl_prune.projection.width_errors import errors_of_drops
from automl_prune.report import FrontRow, front_table
from automl_prune.report.measured import exported_latencies
from automl_prune.sections import EvaluationSection
from automl_prune.sensitivity import known_drops
from automl_prune.session import Session, environment
from automl_prune.study.baselines import Baseline, Propose, at_several_costs
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import FailedFinalist, StudyContext, StudyRecord
from automl_prune.study.runner import StudyReader, read_study, run_study, write_failed_finalist
from automl_prune.study.spec import Evaluate, Event, StudySpec
from automl_prune.study.storage import StudyStorage
from automl_prune.view import SearchEnded, View


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


def study_spec(
    session: Session,
    evaluation: EvaluationSection,
    identity: Mapping[str, Any],
    name: str,
    directory: RunDirectory,
    config: Mapping[str, Any],
    *,
    strategy: str,
    seed: int,
) -> StudySpec:
    """What a study of a session is asked to do, with the baselines that it has to beat and no trials yet."""
    graph, projector = session.graph, session.projector
    context = StudyContext(
        name=directory.path.resolve().name,
        config=config,
        metric=session.task.metric,
        cost=next(iter(session.limits)),
        limits=session.limits,
        dense_costs=session.prices.dense,
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
        requested=0,
        baselines=baselines_of(session, directory),
        attempts=evaluation.attempts,
        device=str(session.device),
        promotion=evaluation.promotion(),
        network=projector.network(),
    )


def baselines_of(session: Session, directory: RunDirectory, levels: int = 3) -> tuple[Baseline, ...]:
    """What the search has to beat, at so many costs from the whole budget down.

    Uniform widths by every criterion; by the first one widths by global ranking, and greedy and knapsack ones over
    the errors of its scores; where ``automl-prune sensitivity`` has measured a criterion in this run directory,
    greedy and knapsack widths over the measured drops too.
    """
    projector, first = session.projector, session.space.criteria[0]

    kinds: dict[str, Propose] = {f"uniform {each}": partial(projector.uniform, each) for each in session.space.criteria}
    kinds[f"global ranking {first}"] = partial(projector.ranked, first)
    kinds[f"greedy {first}"] = partial(projector.greedy, first)
    kinds[f"knapsack {first}"] = partial(projector.knapsack, first)
    for criterion in session.space.criteria:
        drops = known_drops(session.evaluator, criterion, directory.sensitivity)
        if drops:
            errors = errors_of_drops(drops, session.graph.widths)
            kinds[f"sensitivity-greedy {criterion}"] = partial(projector.greedy, criterion, errors=errors)
            kinds[f"sensitivity-knapsack {criterion}"] = partial(projector.knapsack, criterion, errors=errors)
    return at_several_costs(
        kinds, projector.point_near, projector.candidate, lowest=session.space.target_cost, levels=levels
    )


def run(
    session: Session, spec: StudySpec, storage: StudyStorage, view: View, evaluate: Evaluate | None = None
) -> StudyRecord:
    """Run a study in this process until its trials are finished.

    Args:
        session: Of the study.
        spec: Of the study.
        storage: Where it lives.
        view: Where progress goes.
        evaluate: Evaluates a candidate; by default the session does.
    """
    with view.stage("Searching") as stage:
        watcher = Watcher(view, stage, spec, _earlier(storage, spec.name))
        reader = cache(partial(StudyReader, storage, spec.name))  # the study exists from its first event on

        def on_event(event: Event) -> None:
            if said := in_words(event):
                view.say(said)
            if event.kind in ("complete", "reused", "failed"):
                watcher.look(reader().read())

        return run_study(
            spec,
            storage,
            session.projector.candidate,
            evaluate or session.evaluate,
            on_event,
            identify=session.evaluator.digest,
        )


def _earlier(storage: StudyStorage, name: str) -> StudyRecord | None:
    """What earlier sessions left; None when there is nothing yet."""
    try:
        return read_study(storage, name)
    except StudyError:  # whatever else is wrong, running it will say
        return None


def conclude(
    session: Session,
    evaluation: EvaluationSection,
    storage: StudyStorage,
    study: str,
    directory: RunDirectory,
    record: StudyRecord,
    factory: Callable[[], nn.Module] | None = None,
    *,
    view: View,
    ahead: Ahead | None = None,
) -> SearchResult:
    """Fine-tune and export the finalists of a search, write its front and its report.

    Args:
        session: Of the study.
        evaluation: How finalists are judged.
        storage: Where the study lives.
        study: Its name there.
        directory: Where everything is written.
        record: The study as read.
        factory: Builds the dense model anew; by default copies it.
        view: Where progress goes.
        ahead: Has the finalists' runs trained by all who work on the study.

    Raises:
        EvaluationError: No finalist at all can be fine-tuned; one that cannot is recorded with the reason.
    """
    rebuild = factory or partial(copy.deepcopy, session.model.cpu())
    session.model.to(session.device)
    left, failed = list(choose(record, evaluation.finalists)), dict[int, str]()

    def set_aside(trial: int, error: EvaluationError) -> None:
        left.remove(trial)
        failed[trial] = str(error)
        write_failed_finalist(storage, FailedFinalist(trial, str(error)), study)
        view.say(f"Trial {trial} could not be fine-tuned as a finalist: {error}")

    finetuning = None
    while left and finetuning is None:  # the first that can be trained has its learning rate measured for all
        try:
            finetuning = finalist_recipe(
                evaluation, session, storage, record, left[0], directory, study, view=view, ahead=ahead
            )
        except EvaluationError as error:
            set_aside(left[0], error)
    if finetuning is not None:  # those of an earlier choice, or that were asked for, have to compare too
        others = [f.trial for f in record.finalists if differing(f, finetuning, evaluation.seeds)]
        left += [trial for trial in others if trial not in left and trial not in failed]
    failures: Mapping[Run, str] = {}
    if finetuning is not None and ahead is not None:
        done = {f.trial for f in record.finalists if not differing(f, finetuning, evaluation.seeds)}
        failures = ahead([Run(t, n, finetuning) for t in left if t not in done for n in range(evaluation.seeds)])
    reasons = {run.trial: reason for run, reason in failures.items()}
    for trial in tuple(left):
        assert finetuning is not None
        try:
            if trial in reasons:
                raise EvaluationError(reasons[trial])
            train_finalist(session, storage, record, trial, finetuning, evaluation.seeds, directory, study, view=view)
            record = read_study(storage, study)
            view.tell(finalist_trained(record, trial))
            export_finalist(session, record, trial, finetuning, rebuild, directory, view=view)
        except EvaluationError as error:
            set_aside(trial, error)
    record = read_study(storage, study)
    write_results(record, directory)
    if failed and not left:
        raise EvaluationError(
            f"none of the finalists could be fine-tuned, the last one because: {[*failed.values()][-1]}; mend that, "
            "then run the same command again"
        )
    result = SearchResult(record, tuple(front_table(record, None, exported_latencies(directory))), directory.path)
    rows = tuple(row.flat(record.context.metric.name) for row in result.front)
    view.tell(SearchEnded(str(directory.path), str(directory.report), verdict(record), rows))
    return result
