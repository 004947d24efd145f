"""The learning rate of the finalists' long fine-tuning: measured once, on the first finalist."""

from __future__ import annotations

from dataclasses import replace

from automl_prune.config import EvaluationSection
from automl_prune.errors import EvaluationError
from automl_prune.evaluation import FineTuning
from automl_prune.finalists import candidate_of, train_run, weights_of
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

    Raises:
        EvaluationError: Fine-tuning diverges at every rate.
    """
    recipe = evaluation.finalist(session.task)
    if evaluation.learning_rate != "auto":
        return recipe
    sweep = record.sweep
    if sweep is None or sweep.steps != recipe.steps:
        if any(finalist.trial == trial for finalist in record.finalists):
            return recipe  # trained before there was a choice
        sweep = _sweep(session, record, trial, recipe, directory, view)
        write_sweep(storage, sweep, study)
        view.say(sweep.sentence(session.task.metric))
    _settle(directory, sweep)
    return replace(recipe, learning_rate=sweep.rate)


def _sweep(
    session: Session, record: StudyRecord, trial: int, recipe: FineTuning, directory: RunDirectory, view: View
) -> RateSweep:
    tried: list[RateTrial] = []
    failure: EvaluationError | None = None
    candidate = candidate_of(record, trial)
    with view.stage("Choosing the learning rate") as stage:
        for number, rate in enumerate(RATES):

            def on_step(done: int, total: int, before: int = number * recipe.steps) -> None:
                stage(before + done, len(RATES) * recipe.steps)

            at_rate = replace(recipe, learning_rate=rate)
            try:
                run = train_run(session, candidate, at_rate, directory, trial, 0, on_step, view, kept=f"rate-{rate:g}")
                tried.append(RateTrial(rate, run.val, run.steps, run.seconds))
            except EvaluationError as error:
                failure = error
                tried.append(RateTrial(rate, None, 0, 0.0))
    sign = 1 if session.task.metric.higher_is_better else -1
    scored = [(sign * entry.val.value, -entry.rate) for entry in tried if entry.val is not None]
    if not scored:
        raise EvaluationError(f"fine-tuning trial {trial} fails at every learning rate of {RATES}: {failure}")
    return RateSweep(trial, recipe.steps, tuple(tried), -max(scored)[1])


def _settle(directory: RunDirectory, sweep: RateSweep) -> None:
    """Make the winner's run the finalist's first one, and remove the others'."""
    for entry in sweep.tried:
        weights = weights_of(directory, sweep.trial, 0, f"rate-{entry.rate:g}")
        if entry.rate == sweep.rate and weights.is_file():
            weights.replace(weights_of(directory, sweep.trial, 0))
        weights.unlink(missing_ok=True)
