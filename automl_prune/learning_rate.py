"""The learning rate of the finalists' long fine-tuning: measured once, on the first finalist."""

from __future__ import annotations

from dataclasses import replace

from automl_prune.errors import EvaluationError
from automl_prune.evaluation import FineTuning
from automl_prune.finalists import Ahead, Run, differing, train_run
from automl_prune.sections import EvaluationSection
from automl_prune.session import Session
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import RateSweep, RateTrial, StudyRecord
from automl_prune.study.runner import write_sweep
from automl_prune.study.storage import StudyStorage
from automl_prune.view import View

RATES = (0.01, 0.03, 0.1)
"""Tried with ``learning_rate: auto``, ascending: a well reconstructed model wants a small one when it is trained
shortly, a larger one the longer it is trained (experiments/benchmarks/results/recovery.md)."""


def finalist_recipe(
    evaluation: EvaluationSection,
    session: Session,
    storage: StudyStorage,
    record: StudyRecord,
    trial: int,
    directory: RunDirectory,
    study: str,
    *,
    view: View,
    ahead: Ahead | None = None,
) -> FineTuning:
    """How finalists are fine-tuned, with the learning rate the study has found or the configuration gives.

    With ``auto`` and nothing found yet for this length, the trial's first run is done at every rate of ``RATES``, and
    the best validation score decides, of equals the lower rate. The result is stored with the study; the winner's run
    is the finalist's first run, and every run is kept as finalists' are, so an interruption loses none.

    Args:
        evaluation: Of the configuration.
        session: Of the study.
        storage: Where the result is recorded.
        record: The study as read.
        trial: The first finalist.
        directory: Where the weights wait.
        study: Its name in the storage.
        view: Where progress goes.
        ahead: Has runs trained by all who work on the study.

    Raises:
        EvaluationError: Fine-tuning diverges at every rate.
    """
    recipe = evaluation.finalist(session.task)
    if evaluation.learning_rate != "auto":
        return recipe
    sweep = record.sweep
    if sweep is None or sweep.steps != recipe.steps:
        if any(f.trial == trial and not differing(f, recipe, evaluation.seeds) for f in record.finalists):
            return recipe  # trained before there was a choice
        sweep = _sweep(session, record, trial, recipe, directory, view, ahead)
        write_sweep(storage, sweep, study)
        view.say(sweep.sentence(session.task.metric))
    _settle(directory, sweep, recipe)
    return replace(recipe, learning_rate=sweep.rate)


def _sweep(
    session: Session,
    record: StudyRecord,
    trial: int,
    recipe: FineTuning,
    directory: RunDirectory,
    view: View,
    ahead: Ahead | None,
) -> RateSweep:
    tried: list[RateTrial] = []
    failure: EvaluationError | None = None
    runs = [_at_rate(trial, replace(recipe, learning_rate=rate)) for rate in RATES]
    failures = ahead(runs) if ahead is not None else {}
    with view.stage("Choosing the learning rate") as stage:
        for number, run in enumerate(runs):

            def on_step(step: int, total: int, before: int = number * recipe.steps) -> None:
                stage(before + step, len(RATES) * recipe.steps)

            rate = run.finetuning.learning_rate
            try:
                if run in failures:
                    raise EvaluationError(failures[run])
                done = train_run(session, record, run, directory, on_step, view)
                tried.append(RateTrial(rate, done.val, done.steps, done.seconds))
            except EvaluationError as error:
                failure = error
                tried.append(RateTrial(rate, None, 0, 0.0))
    sign = 1 if session.task.metric.higher_is_better else -1
    scored = [(sign * entry.val.value, -entry.rate) for entry in tried if entry.val is not None]
    if not scored:
        raise EvaluationError(f"fine-tuning trial {trial} fails at every learning rate of {RATES}: {failure}")
    return RateSweep(trial, recipe.steps, tuple(tried), -max(scored)[1])


def _at_rate(trial: int, recipe: FineTuning) -> Run:
    return Run(trial, 0, recipe, kept=f"rate-{recipe.learning_rate:g}")


def _settle(directory: RunDirectory, sweep: RateSweep, recipe: FineTuning) -> None:
    """Make the winner's run the finalist's first one, and remove the others'."""
    for entry in sweep.tried:
        at_rate = replace(recipe, learning_rate=entry.rate)
        weights = _at_rate(sweep.trial, at_rate).weights(directory)
        if entry.rate == sweep.rate and weights.is_file():
            weights.replace(Run(sweep.trial, 0, at_rate).weights(directory))
        weights.unlink(missing_ok=True)
