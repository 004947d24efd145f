"""What several sections of the report share, computed from a study's record and the files of its run directory.

What one section alone shows is collected in that section's own file, see ``sections``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from automl_prune.front import ParetoFront
from automl_prune.report.answer import Answer, answer
from automl_prune.report.measured import exported_latencies
from automl_prune.report.table import FrontRow, criteria_used, finalist_table, front, front_table
from automl_prune.report.words import plural
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import StudyContext, StudyRecord, TrialRecord

Category = Literal["front", "baseline", "search", "over budget", "lower rung"]


@dataclass(frozen=True, slots=True)
class Missing:
    """A part that is left out, and the sentence that says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial of the trials table and one dot of the search figure.

    Attributes:
        trial: The record itself.
        status: For people: complete, on the front, over budget, failed, running, waiting.
        category: How the figure draws it; None when it has no score.
        criteria: In words; empty when it has no candidate.
        seconds: Wall time; None when not finished.
    """

    trial: TrialRecord
    status: str
    category: Category | None
    criteria: str
    seconds: float | None


@dataclass(frozen=True, slots=True)
class ReportData:
    """What the sections start from.

    Attributes:
        record: The study as of reading.
        run_dir: Where it lives, for the commands.
        progress: How far the study is, one sentence.
        answer: The first thing to read.
        finalists: All feasible finalists by cost, dominated ones too.
        front: The front of the highest stage by cost.
        search_front: The front of the search, at the rung of its points.
        trials: Every trial, in order of number.
        exported: Trials whose exported and verified model lies in the run directory.
    """

    record: StudyRecord
    run_dir: Path
    progress: str
    answer: Answer
    finalists: tuple[FrontRow, ...] | Missing
    front: tuple[FrontRow, ...] | Missing
    search_front: ParetoFront
    trials: tuple[TrialRow, ...]
    exported: frozenset[int]

    @property
    def context(self) -> StudyContext:
        """What was searched."""
        return self.record.context


def collect(record: StudyRecord, run_dir: Path) -> ReportData:
    """What the sections of a study's report start from, whatever state it is in.

    Args:
        record: The study as of reading; not changed.
        run_dir: Where it lives: for the commands, and to see what has been exported.
    """
    searched, directory = front(record, "search"), RunDirectory(run_dir)
    latencies = exported_latencies(directory)
    return ReportData(
        record=record,
        run_dir=run_dir,
        progress=_progress(record),
        answer=answer(record, latencies),
        finalists=tuple(finalist_table(record, latencies)) or Missing(_no_finalists(record)),
        front=tuple(front_table(record, None, latencies))
        or Missing("No completed trial meets the budget, so there is no front."),
        search_front=searched,
        trials=tuple(_trial_row(trial, searched) for trial in record.trials),
        exported=frozenset(number for number, _ in directory.exported()),
    )


def _progress(record: StudyRecord) -> str:
    counts = {
        state: sum(t.state == state for t in record.trials) for state in ("complete", "failed", "running", "waiting")
    }
    parts = [f"{counts['complete']} of {plural(record.requested, 'trial')} complete"]
    parts += [f"{counts[state]} {state}" for state in ("failed", "running", "waiting") if counts[state]]
    parts.append(plural(len(record.finalists), "finalist") if record.finalists else "no finalists")
    parts += [f"trial {f.trial} could not be fine-tuned as a finalist ({f.reason})" for f in record.failed_finalists]
    if record.stop is not None:
        return f"{', '.join(parts)}. {record.stop.sentence(record.requested)}"
    return ", ".join(parts) + ("." if record.finished else "; the search is unfinished and can be resumed.")


def _no_finalists(record: StudyRecord) -> str:
    if record.finalists:
        return "No finalist meets the budget."
    return "No finalist has been fine-tuned, so nothing is known on the test split."


def _trial_row(trial: TrialRecord, searched: ParetoFront) -> TrialRow:
    evaluation = trial.evaluation
    category: Category | None = None
    status: str = trial.state
    if evaluation is not None:
        if not trial.feasible:
            category = status = "over budget"
        elif evaluation.rung != searched.rung:
            category = "lower rung"
            status = f"stayed at rung {evaluation.rung}"
        elif trial.number in searched.trials:
            category, status = "front", "on the front"
        else:
            category = "baseline" if trial.origin != "search" else "search"
    seconds = None
    if trial.started and trial.finished:
        seconds = (trial.finished - trial.started).total_seconds()
    return TrialRow(trial, status, category, criteria_used(evaluation.candidate) if evaluation else "", seconds)
