"""Export one chosen model of a search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from automl_prune.api.preparing import check_overrides, session_in
from automl_prune.api.reading import best_row, budget_of, read, storage_of, study_name, write_results
from automl_prune.config import Config
from automl_prune.errors import ConfigError, StudyError
from automl_prune.evaluation import FineTuning
from automl_prune.finalists import differing, export_finalist, train_finalist
from automl_prune.learning_rate import finalist_recipe
from automl_prune.report import front_table
from automl_prune.report.table import completed
from automl_prune.study.directory import RunDirectory
from automl_prune.study.invitation import read_invitation
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.storage import open_storage
from automl_prune.view import Silent, View


def export(
    run_dir: Path,
    *,
    trial: int | None = None,
    budget: Sequence[str] = (),
    storage: str | None = None,
    overrides: Sequence[str] = (),
    trusted: Sequence[str] = (),
    view: View | None = None,
) -> Path:
    """Export one model of a finished or running search; a trial that is no finalist is fine-tuned as one first.

    Args:
        run_dir: Of a search started from a configuration.
        trial: Which trial; or
        budget: ``"macs=0.4"`` each: the best model of the search within these.
        storage: URL of the study's database, if it is not in the run directory.
        overrides: ``"data.root=..."`` and the like, where the data lie on this machine, or the device; not kept.
        trusted: Packages whose functions the run directory's configuration may name.
        view: Where progress goes.

    Returns:
        The model's directory.

    Raises:
        StudyError: There is no such trial, the model or the data are others than the search's, or its finalists were
            fine-tuned otherwise than this one would be.
        ConfigError: The configuration names code that is not trusted; see ``factories.check_trust``.
    """
    if (trial is None) == (not budget):
        raise ConfigError("name what to export: either --trial N or --budget macs=0.4")
    check_overrides(overrides)
    view, directory = view or Silent(), RunDirectory(run_dir)
    storage = storage_of(directory, storage)
    record = read(run_dir, storage)
    number = _trial_within(record, budget) if trial is None else trial
    if number not in {t.number for t, _ in completed(record)}:
        known = ", ".join(str(t.number) for t, _ in completed(record)) or "none"
        raise StudyError(f"trial {number} is not a completed trial of this study; completed are: {known}")
    if not next(t.feasible for t, _ in completed(record) if t.number == number):
        raise StudyError(f"trial {number} is over the budget: it is never on the front and never exported")
    if not directory.config.is_file():
        raise ConfigError(f"{directory.config} is missing: the search was started from Python; export from there")
    config = Config.load(directory.config, overrides)
    config.check_trust(trusted)
    opened, name = open_storage(storage, run_dir), study_name(directory, storage)
    evaluation, session = config.evaluation, session_in(directory, config, read_invitation(opened, name), view)
    finetuning = finalist_recipe(evaluation, session, opened, record, number, directory, name, view=view)
    _check_comparable(record, number, finetuning, evaluation.seeds)
    train_finalist(session, opened, record, number, finetuning, evaluation.seeds, directory, name, view=view)
    record = read_study(opened, name)
    export_finalist(session, record, number, finetuning, config.build_model, directory, view=view)
    write_results(record, directory)
    return directory.model(number)


def _check_comparable(record: StudyRecord, number: int, finetuning: FineTuning, seeds: int) -> None:
    for finalist in record.finalists:
        if finalist.trial != number and (changed := differing(finalist, finetuning, seeds)):
            raise StudyError(
                f"trial {finalist.trial} was fine-tuned with other settings ({changed}), and the models of one study "
                "are compared; restore these, or run the search again with the new ones, which does its finalists anew"
            )


def _trial_within(record: StudyRecord, budget: Sequence[str]) -> int:
    wanted = budget_of(budget)
    row = best_row(record, front_table(record), wanted) or best_row(record, front_table(record, "search"), wanted)
    if row is None:
        raise StudyError(f"no model of this study is within {', '.join(budget)}; see 'automl-prune front'")
    return row.trial
