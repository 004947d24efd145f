"""The front as rows: from a study's record to points, to named fields, to front.csv and front.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd

from automl_prune.candidate import Candidate
from automl_prune.costs import Cost
from automl_prune.errors import StudyError
from automl_prune.evaluation.record import Evaluation
from automl_prune.files import write_json, write_text
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.report.estimate import Estimate
from automl_prune.report.measured import exported_latencies
from automl_prune.study.directory import RunDirectory
from automl_prune.study.record import Finalist, StudyContext, StudyRecord, TrialRecord

FINALIST_RUNG = 2
_LATENCY = ("latency", "latency_ratio", "latency_noisy")
Stage = Literal["search", "finalists"]


@dataclass(frozen=True, slots=True)
class FrontRow:
    """One model of a front.

    Attributes:
        trial: Number of its trial.
        origin: ``"search"`` or the baseline it is.
        rung: 0 without training, 1 after a short fine-tuning, 2 as a finalist.
        costs: By metric name, with the dense model's beside them. All are exact but latency, which is that of the
            candidate where the search measured it, else that of the exported file, else absent.
        val: Score on the validation split, on which everything was chosen.
        test: Score on the test split; None unless the model is a finalist.
        knee: Whether it is the front's knee.
        on_front: False for a finalist that another one dominates.
        candidate: Widths and criteria.
    """

    trial: int
    origin: str
    rung: int
    costs: Mapping[str, Cost]
    val: Estimate
    test: Estimate | None
    knee: bool
    on_front: bool
    candidate: Candidate

    @property
    def latency(self) -> Cost | None:
        """Its measured latency; None where it was not measured."""
        return self.costs.get("latency")

    @property
    def efficiency(self) -> float | None:
        """The speed-up in latency divided by that in MACs, 1 where all that was cut is saved; None if not measured."""
        return self.costs["macs"].ratio / self.latency.ratio if self.latency is not None else None

    @property
    def is_baseline(self) -> bool:
        """Whether it was enqueued as a baseline, not proposed by the search."""
        return self.origin != "search"

    @property
    def criteria(self) -> str:
        """The criteria that chose its channels, the most used first, e.g. ``"l1 × 7, l2 × 2"`` (groups)."""
        return criteria_used(self.candidate)

    def flat(self, metric: str) -> dict[str, int | float | str | bool | None]:
        """One level of plain values: a row of front.csv and an object of front.json; absent values are None.

        Args:
            metric: Name of the score, for the column names, e.g. ``accuracy_val``.
        """
        row: dict[str, int | float | str | bool | None] = {"trial": self.trial, "origin": self.origin}
        for name, cost in self.costs.items():
            row[name] = int(cost.value) if float(cost.value).is_integer() else cost.value
            row[f"{name}_ratio"] = cost.ratio
        latency = self.latency
        row |= dict.fromkeys(_LATENCY) if latency is None else {"latency_noisy": latency.noisy is not None}
        row["efficiency"] = self.efficiency
        for split, estimate in (("val", self.val), ("test", self.test)):
            row[f"{metric}_{split}"] = estimate.value if estimate else None
            row[f"{metric}_{split}_std"] = estimate.std if estimate else None
            row[f"{metric}_{split}_se"] = estimate.standard_error if estimate else None
        row["seeds"] = self.val.seeds
        row["rung"] = self.rung
        row["knee"] = self.knee
        return row


def criteria_used(candidate: Candidate) -> str:
    """The criteria of a candidate's groups in words, the most used first."""
    counts = Counter(choice.criterion for choice in candidate.choices.values())
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} × {count}" for name, count in counts.most_common())


def search_points(record: StudyRecord, cost: str | None = None) -> list[FrontPoint]:
    """One point per completed trial with that cost, in order of number: validation score against the cost.

    Args:
        record: Any study, finished or not.
        cost: Name of a metric; by default that of the first budget.
    """
    cost = cost or record.context.cost
    return [
        FrontPoint(
            trial=trial.number,
            score=evaluation.score.value,
            cost=evaluation.costs[cost].value,
            feasible=bool(trial.feasible),
            rung=evaluation.rung,
        )
        for trial, evaluation in completed(record)
        if cost in evaluation.costs
    ]


def finalist_points(record: StudyRecord) -> list[FrontPoint]:
    """One point per finalist: mean validation score over its seeds against the first budget's cost."""
    return [
        FrontPoint(
            trial=trial.number,
            score=Estimate.of([run.val for run in finalist.runs]).value,
            cost=evaluation.costs[record.context.cost].value,
            feasible=bool(trial.feasible),
            rung=FINALIST_RUNG,
        )
        for finalist, trial, evaluation in _finalists(record)
    ]


def front(record: StudyRecord, stage: Stage) -> ParetoFront:
    """The front of one stage; empty when that stage has no feasible model."""
    points = search_points(record) if stage == "search" else finalist_points(record)
    return ParetoFront.of(points, higher_is_better=record.context.metric.higher_is_better)


def front_table(
    record: StudyRecord, stage: Stage | None = None, exported: Mapping[int, Cost] | None = None
) -> list[FrontRow]:
    """The rows of a front in ascending order of cost.

    Args:
        record: Any study, finished or not.
        stage: The finalists' front or the search's; by default the finalists' when there is one.
        exported: Latencies of exported models by trial, for rows whose candidates were not measured.
    """
    if stage is None:
        stage = "finalists" if front(record, "finalists").points else "search"
    return [row for row in _rows(record, stage, exported) if row.on_front]


def finalist_table(record: StudyRecord, exported: Mapping[int, Cost] | None = None) -> list[FrontRow]:
    """All feasible finalists in ascending order of cost, those that others dominate too; arguments as above."""
    return _rows(record, "finalists", exported)


def trial_row(record: StudyRecord, number: int) -> FrontRow:
    """The row of one completed trial as the search evaluated it, on the front or not."""
    for trial, evaluation in completed(record):
        if trial.number == number:
            return _row(trial, evaluation, front(record, "search"))
    raise StudyError(f"trial {number} is not a completed trial of study {record.context.name!r}")


def shown_costs(context: StudyContext, rows: Iterable[FrontRow]) -> tuple[str, ...]:
    """The metrics that a table of rows has columns for: the dense model's, and latency where one was measured."""
    measured = ("latency",) if any(row.latency is not None for row in rows) else ()
    return tuple(dict.fromkeys((*context.dense_costs, *measured)))


def write_front(record: StudyRecord, path: Path) -> tuple[Path, Path]:
    """Write ``front.csv`` and ``front.json`` atomically into a run directory; returns their paths.

    An empty front gives a CSV with the header alone and an empty JSON list.
    """
    directory = RunDirectory(path)
    rows = [row.flat(record.context.metric.name) for row in front_table(record, None, exported_latencies(directory))]
    columns = list(rows[0]) if rows else _columns(record)
    frame = pd.DataFrame(rows, columns=pd.Index(columns))
    write_text(directory.front_csv, frame.to_csv(index=False, lineterminator="\n"))
    write_json(directory.front_json, rows)
    return directory.front_csv, directory.front_json


def completed(record: StudyRecord) -> list[tuple[TrialRecord, Evaluation]]:
    """The completed trials with their evaluations, in order of number."""
    return [(trial, trial.evaluation) for trial in record.trials if trial.evaluation is not None]


def _columns(record: StudyRecord) -> list[str]:
    exact = [name for name in record.context.dense_costs if name != "latency"]
    costs = [*(column for name in exact for column in (name, f"{name}_ratio")), *_LATENCY, "efficiency"]
    scores = [
        f"{record.context.metric.name}_{split}{tail}" for split in ("val", "test") for tail in ("", "_std", "_se")
    ]
    return ["trial", "origin", *costs, *scores, "seeds", "rung", "knee"]


def _finalists(record: StudyRecord) -> list[tuple[Finalist, TrialRecord, Evaluation]]:
    by_number = {trial.number: (trial, evaluation) for trial, evaluation in completed(record)}
    for finalist in record.finalists:
        if finalist.trial not in by_number:
            raise StudyError(
                f"study {record.context.name!r} holds a finalist of trial {finalist.trial}, "
                "which is not a completed trial; its storage is damaged, restore it or start a new study"
            )
    return [(finalist, *by_number[finalist.trial]) for finalist in record.finalists]


def _rows(record: StudyRecord, stage: Stage, exported: Mapping[int, Cost] | None) -> list[FrontRow]:
    chosen = front(record, stage)
    if stage == "search":
        rows: Sequence[FrontRow] = [
            _row(trial, evaluation, chosen) for trial, evaluation in completed(record) if trial.number in chosen.trials
        ]
    else:
        rows = [_row(t, e, chosen, finalist) for finalist, t, e in _finalists(record) if t.feasible]
    rows = [_with_latency(row, (exported or {}).get(row.trial)) for row in rows]
    return sorted(rows, key=lambda row: (row.costs[record.context.cost].value, row.trial))


def _with_latency(row: FrontRow, exported: Cost | None) -> FrontRow:
    """The row with its exported model's latency, unless the candidate's own was measured."""
    return (
        row if exported is None or row.latency is not None else replace(row, costs={**row.costs, "latency": exported})
    )


def _row(trial: TrialRecord, evaluation: Evaluation, chosen: ParetoFront, finalist: Finalist | None = None) -> FrontRow:
    knee = chosen.knee()
    return FrontRow(
        trial=trial.number,
        origin=trial.origin,
        rung=FINALIST_RUNG if finalist else evaluation.rung,
        costs=evaluation.costs,
        val=Estimate.of([run.val for run in finalist.runs] if finalist else [evaluation.score]),
        test=Estimate.of([run.test for run in finalist.runs]) if finalist else None,
        knee=knee is not None and knee.trial == trial.number,
        on_front=trial.number in chosen.trials,
        candidate=evaluation.candidate,
    )
