"""What a run directory holds: its study, how far it is, its front and its report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from automl_prune.budget import Budget
from automl_prune.errors import StudyError
from automl_prune.report import FrontRow, build_report, front_table, write_front
from automl_prune.report.answer import answer
from automl_prune.report.table import completed
from automl_prune.report.words import duration
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.storage import open_storage


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
    with closing(open_storage(storage, run_dir)) as opened:
        return read_study(opened, study_name(directory, storage))


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
    climbed = sum(evaluation.rung > 0 for _, evaluation in completed(record))
    if climbed:
        lines.append(f"{climbed} trials climbed to rung 1 (short fine-tuning)")
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
    write_results(read(run_dir, storage), directory)
    return directory.report


def write_results(record: StudyRecord, directory: RunDirectory) -> None:
    """Write the front's tables and the report into the run directory."""
    write_front(record, directory.path)
    build_report(record, directory.report)


def best_row(record: StudyRecord, rows: Sequence[FrontRow], budget: Budget | None) -> FrontRow | None:
    """The row with the best validation score within a budget, without one of all; None if there is none."""
    limits = budget.limits(record.context.dense_costs) if budget else {}
    sign = 1 if record.context.metric.higher_is_better else -1
    fitting = [row for row in rows if all(row.costs[metric].value <= limit for metric, limit in limits.items())]
    return max(fitting, key=lambda row: sign * row.val.value, default=None)


def study_name(directory: RunDirectory, storage: str | None) -> str:
    """A journal holds one study, whatever its directory is renamed to; a database may hold many."""
    return "study" if storage is None else directory.path.resolve().name
