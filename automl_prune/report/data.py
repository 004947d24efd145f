"""Everything the report shows, computed from a study's record alone: collected here, drawn and written elsewhere."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from automl_prune.front import FrontPoint, ParetoFront, hypervolume_history
from automl_prune.report.answer import Answer, answer
from automl_prune.report.table import (
    FINALIST_RUNG,
    FrontRow,
    completed,
    criteria_used,
    finalist_table,
    front,
    front_table,
    search_points,
)
from automl_prune.report.words import plural
from automl_prune.study.record import StudyContext, StudyRecord, TrialRecord

Category = Literal["front", "baseline", "search", "over budget", "other rung"]
MAX_FAILED_TRIALS_NAMED = 12


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
class History:
    """The front's growth.

    Attributes:
        trials: Numbers of the completed trials of one rung, in order.
        values: Hypervolume after each, as a fraction of the rectangle between the reference and (no cost, the dense
            model's score).
        baselines: What the baselines alone reach; None without a feasible one.
        baseline_trials: Which of ``trials`` are baselines.
        reference: (score, cost): the worst score of these trials, the dense model's cost.
    """

    trials: tuple[int, ...]
    values: tuple[float, ...]
    baselines: float | None
    baseline_trials: tuple[int, ...]
    reference: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage of the search cost: runs, optimiser steps (None where unknown) and worker seconds."""

    name: str
    runs: int
    steps: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """Trials that failed for one reason."""

    reason: str
    trials: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """Something to run: what for, and the exact line (shell or Python)."""

    purpose: str
    line: str


@dataclass(frozen=True, slots=True)
class ReportData:
    """The parts of the page, in its order.

    Attributes:
        context: What was searched.
        progress: How far the study is, one sentence.
        answer: The first thing to read.
        finalists: All feasible finalists by cost, dominated ones too.
        front: The front of the highest stage by cost; the kept widths are shown for these.
        search_front: The front of the search, at the rung of its points.
        trials: Every trial, in order of number.
        history: Growth of the search's front.
        stages: Costs of the search by stage.
        wall_seconds: From the first trial's start to the last one's end; None before that.
        workers: Distinct workers that completed a trial.
        failures: By reason, the most frequent first.
        commands: To reproduce, resume and export.
    """

    context: StudyContext
    progress: str
    answer: Answer
    finalists: tuple[FrontRow, ...] | Missing
    front: tuple[FrontRow, ...] | Missing
    search_front: ParetoFront
    trials: tuple[TrialRow, ...]
    history: History | Missing
    stages: tuple[Stage, ...]
    wall_seconds: float | None
    workers: int
    failures: tuple[Failure, ...]
    commands: tuple[Command, ...]

    @property
    def config_text(self) -> str:
        """The resolved configuration as indented JSON (which is YAML too)."""
        return json.dumps(_plain(self.context.config), indent=2, ensure_ascii=False, default=str)


def collect(record: StudyRecord, run_dir: Path) -> ReportData:
    """All parts of the report of a study, whatever state it is in.

    Args:
        record: The study as of reading; not changed.
        run_dir: Where it lives, for the commands.
    """
    searched = front(record, "search")
    rows = tuple(front_table(record))
    chosen = answer(record)
    starts = [trial.started for trial in record.trials if trial.started]
    ends = [trial.finished for trial in record.trials if trial.finished]
    return ReportData(
        context=record.context,
        progress=_progress(record),
        answer=chosen,
        finalists=tuple(finalist_table(record)) or Missing(_no_finalists(record)),
        front=rows or Missing("No completed trial meets the budget, so there is no front."),
        search_front=searched,
        trials=tuple(_trial_row(trial, searched) for trial in record.trials),
        history=_history(record, searched),
        stages=_stages(record),
        wall_seconds=(max(ends) - min(starts)).total_seconds() if starts and ends else None,
        workers=len({evaluation.worker for _, evaluation in completed(record)}),
        failures=_failures(record),
        commands=_commands(record, chosen, run_dir),
    )


def _progress(record: StudyRecord) -> str:
    counts = {
        state: sum(t.state == state for t in record.trials) for state in ("complete", "failed", "running", "waiting")
    }
    parts = [f"{counts['complete']} of {plural(record.requested, 'trial')} complete"]
    parts += [f"{counts[state]} {state}" for state in ("failed", "running", "waiting") if counts[state]]
    parts.append(plural(len(record.finalists), "finalist") if record.finalists else "no finalists")
    unfinished = counts["complete"] + counts["failed"] < record.requested
    return ", ".join(parts) + ("; the search is unfinished and can be resumed." if unfinished else ".")


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
            category = "other rung"
        elif trial.number in searched.trials:
            category, status = "front", "on the front"
        else:
            category = "baseline" if trial.origin != "search" else "search"
    seconds = None
    if trial.started and trial.finished:
        seconds = (trial.finished - trial.started).total_seconds()
    return TrialRow(trial, status, category, criteria_used(evaluation.candidate) if evaluation else "", seconds)


def _history(record: StudyRecord, searched: ParetoFront) -> History | Missing:
    points = [point for point in search_points(record) if point.rung == searched.rung]
    if len(points) < 2:
        return Missing("A history needs at least two completed trials of one rung, one of them under the budget.")
    context = record.context
    higher = context.metric.higher_is_better
    scores = [point.score for point in points]
    worst = min(scores) if higher else max(scores)
    reference = (worst, context.dense_costs[context.cost])
    dense = ParetoFront((FrontPoint(-1, context.dense_val.value, 0.0, True, 0),), higher).hypervolume(reference)
    if dense <= 0:
        return Missing("Every trial scores at least as well as the dense model, so there is no scale for a history.")
    values = hypervolume_history(points, reference, higher_is_better=higher)
    baselines = {trial.number for trial in record.trials if trial.origin != "search"}
    rivals = [point for point in points if point.trial in baselines and point.feasible]
    level = ParetoFront.of(rivals, higher_is_better=higher).hypervolume(reference) / dense if rivals else None
    return History(
        trials=tuple(point.trial for point in points),
        values=tuple(value / dense for value in values),
        baselines=level,
        baseline_trials=tuple(point.trial for point in points if point.trial in baselines),
        reference=reference,
    )


def _stages(record: StudyRecord) -> tuple[Stage, ...]:
    done = [evaluation for _, evaluation in completed(record)]
    failed = [t for t in record.trials if t.state == "failed"]
    lost = sum((t.finished - t.started).total_seconds() for t in failed if t.started and t.finished)
    runs = [run for finalist in record.finalists for run in finalist.runs]
    names = {0: "Trials, no training", 1: "Trials, short fine-tuning"}
    stages = [
        Stage(
            names.get(rung, f"Trials at rung {rung}"),
            sum(e.rung == rung for e in done),
            sum(e.steps for e in done if e.rung == rung),
            sum(e.seconds for e in done if e.rung == rung),
        )
        for rung in sorted({e.rung for e in done})
    ]
    if failed:
        stages.append(Stage("Failed trials", len(failed), None, lost))
    if runs:
        total = Stage(
            "Finalists, long fine-tuning", len(runs), sum(r.steps for r in runs), sum(r.seconds for r in runs)
        )
        stages.append(total)
    return tuple(stages)


def _failures(record: StudyRecord) -> tuple[Failure, ...]:
    by_reason: dict[str, list[int]] = {}
    for trial in record.trials:
        if trial.state == "failed":
            by_reason.setdefault(trial.reason or "lost with its worker, no reason recorded", []).append(trial.number)
    failures = [Failure(reason, tuple(trials)) for reason, trials in by_reason.items()]
    return tuple(sorted(failures, key=lambda failure: (-len(failure.trials), failure.trials)))


def _commands(record: StudyRecord, chosen: Answer, run_dir: Path) -> tuple[Command, ...]:
    place, config = shlex.quote(str(run_dir)), shlex.quote(str(run_dir / "config.yaml"))
    again = shlex.quote(f"{run_dir}-again")
    commands = [
        Command("Reproduce in a new run directory", f"automl-prune search {config} --run-dir {again}"),
        Command("Resume, or add trials with a larger --trials", f"automl-prune search {config} --run-dir {place}"),
        Command("Look at the state of the study", f"automl-prune status {place}"),
        Command("Print the front", f"automl-prune front {place}"),
        Command("Rebuild this report", f"automl-prune report {place}"),
    ]
    if chosen.row is not None and chosen.kind != "closest":
        number = chosen.row.trial
        commands.append(Command("Export the chosen model", f"automl-prune export {place} --trial {number}"))
        if chosen.row.rung == FINALIST_RUNG:
            model = record.context.config.get("model")
            factory = model.get("factory") if isinstance(model, Mapping) else None
            folder = json.dumps(str(run_dir / "models" / str(number)))
            line = f"model = automl_prune.load_pruned({folder}, factory())"
            line += f"  # factory: {factory}" if factory else ""
            commands.append(Command("Load it in Python, into the dense model's own factory", line))
    return tuple(commands)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
