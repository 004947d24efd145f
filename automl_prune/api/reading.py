"""What a run directory holds: its study, how far it is, its front and its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from automl_prune.budget import Budget
from automl_prune.errors import ConfigError, StudyError
from automl_prune.finalist_jobs import RunJob, read_runs
from automl_prune.report import FrontRow, build_report, front_table, write_figures, write_front, write_summary
from automl_prune.report.answer import answer
from automl_prune.report.measured import exported_latencies
from automl_prune.report.table import completed
from automl_prune.report.words import duration
from automl_prune.study.crew import Crew, Member, read_crew
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyRecord
from automl_prune.study.runner import read_study
from automl_prune.study.storage import StudyStorage, open_storage
from automl_prune.yaml_file import parse

STORAGE_VARIABLE = "AUTOML_PRUNE_STORAGE"
"""Environment variable with the URL of the database of studies whose run directory holds no journal."""


def read(run_dir: Path, storage: str | None = None) -> StudyRecord:
    """The record of the study a run directory holds.

    Raises:
        StudyError: There is none.
    """
    with open_study(run_dir, storage) as (opened, name):
        return read_study(opened, name)


@contextmanager
def open_study(run_dir: Path, storage: str | None) -> Iterator[tuple[StudyStorage, str]]:
    """The storage of the study of a run directory, and its name there; closed at the end of the block."""
    directory = RunDirectory(run_dir)
    url = storage_of(directory, storage)
    with closing(open_storage(url, run_dir)) as opened:
        yield opened, study_name(directory, url)


def storage_of(directory: RunDirectory, given: str | None) -> str | None:
    """Where the study of a run directory lives: as given, else in its journal (None), else as the environment says.

    Raises:
        StudyError: Nothing says where.
    """
    url = storage_by_default(directory.path, given)
    if url is not None or directory.journal.is_file():
        return url
    raise StudyError(
        f"{directory.path} holds no study ({directory.journal.name} is missing); give the run directory of a "
        f"search, and --storage URL (or the environment variable {STORAGE_VARIABLE}) if it lives in a database"
    )


def storage_by_default(run_dir: Path | None, given: str | None) -> str | None:
    """Where a study lives that may not have been begun: as ``storage_of``, and in a new journal where nothing says.

    Raises:
        StudyError: It has been begun in a database, and nothing says how to reach that.
    """
    directory = None if run_dir is None else RunDirectory(run_dir)
    if given is not None or (directory is not None and directory.journal.is_file()):
        return given
    url = os.environ.get(STORAGE_VARIABLE) or None
    if url is None and directory is not None and directory.elsewhere.is_file():
        place = directory.elsewhere.read_text(encoding="utf-8").strip()
        raise StudyError(
            f"the study of {directory.path} lives in {place}; give --storage URL, or the environment variable "
            f"{STORAGE_VARIABLE}; for a new study give another --run-dir"
        )
    return url


@dataclass(frozen=True, slots=True)
class Status:
    """How far a study is, who works on it, and what went wrong."""

    record: StudyRecord
    crew: Crew
    runs: tuple[RunJob, ...] = ()

    @property
    def finished(self) -> int:
        """Trials that are complete or failed."""
        return self.count("complete") + self.count("failed")

    def count(self, state: str) -> int:
        """Trials in one state."""
        return sum(trial.state == state for trial in self.record.trials)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; times in seconds, unknown ones are null."""
        record, left = self.record, self.record.left
        return {
            "study": record.context.name,
            "requested": record.requested,
            **{state: self.count(state) for state in ("complete", "failed", "running", "waiting")},
            "finalists": len(record.finalists),
            "finalist_runs": [run.to_json() for run in self.runs],
            "stopped_after": record.stop.trials if record.stop else None,
            **self.crew.to_json(),
            "seconds_left": self.crew.seconds_left(left) if left else 0.0,
            "failures": [{"trial": t.number, "reason": t.reason} for t in record.trials if t.state == "failed"],
            "finalist_failures": [{"trial": f.trial, "reason": f.reason} for f in record.failed_finalists],
            "verdict": verdict(record),
        }

    def in_words(self) -> str:
        """The same for people."""
        record, crew = self.record, self.crew
        lines = [
            f"study {record.context.name}: {self.finished} of {record.requested} trials finished "
            f"({self.count('complete')} complete, {self.count('failed')} failed), {self.count('running')} running, "
            f"{self.count('waiting')} waiting, {crew.retries} retries, {len(record.finalists)} finalists trained"
        ]
        climbed = sum(evaluation.rung > 0 for _, evaluation in completed(record))
        if climbed:
            lines.append(f"{climbed} trials climbed to rung 1 (short fine-tuning)")
        lines += [_on_duty(member) for member in crew.members]
        if record.stop is not None:
            lines.append(record.stop.sentence(record.requested))
        lines += _runs_in_words(self.runs)
        left = record.left
        if left > 0 and crew.seconds_per_trial:
            lines.append(_pace(crew, crew.seconds_per_trial, left))
        lines += [f"trial {t.number} failed: {t.reason}" for t in record.trials if t.state == "failed"]
        lines += [f"trial {f.trial} failed as a finalist: {f.reason}" for f in record.failed_finalists]
        return "\n".join([*lines, verdict(record)])


def status(run_dir: Path, storage: str | None = None) -> Status:
    """Trials by state, workers and their leases, retries, failures with reasons, pace and time left."""
    with open_study(run_dir, storage) as (opened, name):
        record = read_study(opened, name)
        return Status(record, read_crew(opened, name, record.requested), read_runs(opened, name))


def _on_duty(member: Member) -> str:
    where = f"worker {member.host}:{member.pid}" + (f" on {member.device}" if member.device else "")
    since = f", since {member.since}" if member.since else ""
    run = "" if member.run is None else f", run {member.run},"
    again = f", attempt {member.attempt}" if member.attempt > 1 else ""
    state = {
        "here": "",
        "gone": "; it has died, the next worker tries the trial again",
        "elsewhere": "; on another machine, given up after a minute without a sign",
    }[member.presence]
    return f"{where}{since}: trial {member.trial}{run} for {duration(member.seconds)}{again}{state}"


def _runs_in_words(runs: Sequence[RunJob]) -> list[str]:
    """How far the finalists' fine-tuning is, and who works on it; nothing when it is over."""
    states = Counter(run.state for run in runs)
    if not states["waiting"] + states["running"] + states["failed"]:
        return []
    return [
        f"finalists: {states['complete']} of {len(runs)} runs fine-tuned, {states['running']} running, "
        f"{states['waiting']} waiting, {states['failed']} failed",
        *(_on_duty(run.member) for run in runs if run.member),
    ]


def _pace(crew: Crew, seconds: float, left: int) -> str:
    remaining = crew.seconds_left(left)
    if remaining is None or crew.trials_per_hour is None:
        return f"nobody works on it; {left} trials are about {duration(left * seconds)} of one worker's time"
    return f"{crew.trials_per_hour:.0f} trials per hour, about {duration(remaining)} left for the search"


def front(run_dir: Path, storage: str | None = None) -> tuple[StudyRecord, list[FrontRow]]:
    """The study of a run directory and its front, the finalists' when there are any."""
    record = read(run_dir, storage)
    return record, front_table(record, None, exported_latencies(RunDirectory(run_dir)))


def verdict(record: StudyRecord) -> str:
    """The answer in two sentences: the best model against the dense one, and against the best baseline."""
    found = answer(record)
    return f"{found.headline}\n{found.verdict}"


def report(run_dir: Path, storage: str | None = None, *, figures: bool = False) -> tuple[Path, ...]:
    """Rebuild report.html, summary.md and the front's tables from storage alone.

    Args:
        run_dir: Of the search.
        storage: URL of the study's database, if it is not in the run directory.
        figures: Whether to write every figure as SVG and PNG too (extra ``figures``).

    Returns:
        The report, and the figures if asked for.

    Raises:
        ReportError: The figures' exporter or its browser is missing; the report is written nevertheless.
    """
    directory, record = RunDirectory(run_dir), read(run_dir, storage)
    write_results(record, directory)
    return (directory.report, *(write_figures(record, directory.figures) if figures else ()))


def write_results(record: StudyRecord, directory: RunDirectory) -> None:
    """Write the front's tables, the report and its summary into the run directory."""
    write_front(record, directory.path)
    build_report(record, directory.report)
    write_summary(record, directory.summary)


def best_row(record: StudyRecord, rows: Sequence[FrontRow], budget: Budget | None) -> FrontRow | None:
    """The row with the best validation score within a budget, without one of all; None if there is none."""
    limits = budget.limits(record.context.dense_costs) if budget else {}
    sign = 1 if record.context.metric.higher_is_better else -1
    fitting = [row for row in rows if all(row.costs[metric].value <= limit for metric, limit in limits.items())]
    return max(fitting, key=lambda row: sign * row.val.value, default=None)


def budget_of(words: Sequence[str]) -> Budget:
    """The budget of the command line's ``"macs=0.4"`` each; a malformed one raises ``ConfigError``."""
    bounds: dict[str, Any] = {}
    for text in words:
        metric, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--budget {text!r}: write it as metric=value, e.g. macs=0.4")
        bounds[metric] = parse(value, f"--budget {text!r}")
    return Budget.parse(bounds)


def study_name(directory: RunDirectory, storage: str | None) -> str:
    """A journal holds one study, whatever its directory is renamed to; a database may hold many."""
    return "study" if storage is None else directory.path.resolve().name
