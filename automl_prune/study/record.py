"""What a study knows, as plain values: read from storage, independent of Optuna, enough for fronts and reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from automl_prune.evaluation.record import Evaluation
from automl_prune.tasks.base import Metric, Score

TrialState = Literal["complete", "failed", "running", "waiting"]
Point = Mapping[str, float | str]
"""Values of the search space's parameters, by name."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt at a trial that was lost with its worker.

    Attributes:
        worker: Who had it, ``host:pid``; None where it left no name.
        started: When that worker took it.
        noticed: When others found that it was lost, which is later than when it died.
    """

    worker: str | None
    started: datetime | None
    noticed: datetime | None


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of the search.

    Attributes:
        number: In the study's order, from 0.
        state: As of reading.
        origin: ``"search"``, or the baseline it is, e.g. ``"uniform l1"``.
        point: What the strategy proposed.
        evaluation: Present when complete.
        reason: Why it failed, when it did.
        feasible: Whether every budget holds; None until complete.
        started: When a worker took it.
        finished: When its result was told.
        attempt: 1, or more when earlier attempts were lost with their worker.
        reused_from: Number of the trial that had evaluated the same candidate before, when there was one.
        worker: Who has or had it, ``host:pid``; None where nobody has taken it.
        lost: Earlier attempts that were lost.
        source: Where its point comes from when an earlier study gave it, in words.
    """

    number: int
    state: TrialState
    origin: str
    point: Point
    evaluation: Evaluation | None
    reason: str | None
    feasible: bool | None
    started: datetime | None
    finished: datetime | None
    attempt: int
    reused_from: int | None = None
    worker: str | None = None
    lost: tuple[Attempt, ...] = ()
    source: str | None = None


@dataclass(frozen=True, slots=True)
class FinalistRun:
    """One long fine-tuning of a finalist: its seed, scores, optimiser steps and wall seconds."""

    seed: int
    val: Score
    test: Score
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Finalist:
    """A trial's candidate, fine-tuned longer with several seeds.

    Attributes:
        trial: Number of the trial it comes from.
        runs: One per seed, at least one.
        recipe: How they were fine-tuned (``FineTuning.identity``); empty where an earlier version did not say.
    """

    trial: int
    runs: tuple[FinalistRun, ...]
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Finalist:
        """Rebuild a record; missing or malformed entries raise ``ValueError``."""
        try:
            runs = tuple(
                FinalistRun(**{**run, "val": Score(**run["val"]), "test": Score(**run["test"])})
                for run in value["runs"]
            )
            return cls(int(value["trial"]), runs, dict(value.get("recipe", {})))
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a finalist record: {error!r} in {value!r}") from error


@dataclass(frozen=True, slots=True)
class FailedFinalist:
    """A trial that could not be fine-tuned as a finalist, and why; the same command tries it again."""

    trial: int
    reason: str


@dataclass(frozen=True, slots=True)
class RateTrial:
    """A fine-tuning at one learning rate: its validation score (None where it diverged), steps and wall seconds."""

    rate: float
    val: Score | None
    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class RateSweep:
    """Which learning rate the finalists are fine-tuned with, and why.

    Attributes:
        trial: The finalist whose first run was done at every rate.
        steps: Optimiser steps of each.
        tried: By ascending rate.
        rate: The one with the best validation score.
    """

    trial: int
    steps: int
    tried: tuple[RateTrial, ...]
    rate: float

    def sentence(self, metric: Metric) -> str:
        """What was chosen, and the scores it rests on, for people."""
        scores = ", ".join(
            f"{entry.rate:g}: {metric.show(entry.val.value) if entry.val else 'diverged'}" for entry in self.tried
        )
        return (
            f"Learning rate of the finalists: {self.rate:g}, by the validation {metric.name} of trial {self.trial}'s "
            f"first run of {self.steps} steps ({scores})."
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RateSweep:
        """Rebuild a record; missing or malformed entries raise ``ValueError``."""
        try:
            tried = tuple(
                RateTrial(**{**entry, "val": Score(**entry["val"]) if entry["val"] else None})
                for entry in value["tried"]
            )
            return cls(**{**value, "tried": tried})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a sweep of learning rates: {error!r} in {value!r}") from error


@dataclass(frozen=True, slots=True)
class StudyContext:
    """What was searched, written once when the study starts. JSON-ready except for the records named in it.

    Attributes:
        name: The study's name.
        config: The resolved configuration, without secrets.
        metric: What candidates are scored by.
        cost: The metric on the front's other axis (the first budget).
        limits: Absolute upper bound of every budgeted cost.
        dense_costs: Costs of the dense model by metric name.
        dense_val: Its score on the validation split.
        dense_test: Its score on the test split.
        group_widths: Dense width of every prunable group, in network order.
        skipped: Rows (name, width, reason) of the channels that cannot be pruned.
        environment: Versions, processor, threads.
    """

    name: str
    config: Mapping[str, Any]
    metric: Metric
    cost: str
    limits: Mapping[str, float]
    dense_costs: Mapping[str, float]
    dense_val: Score
    dense_test: Score
    group_widths: Mapping[str, int]
    skipped: tuple[tuple[str, int, str], ...]
    environment: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` inverts it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StudyContext:
        """Rebuild a context; missing or malformed entries raise ``ValueError``."""
        try:
            return cls(
                **{
                    **value,
                    "metric": Metric(**value["metric"]),
                    "dense_val": Score(**value["dense_val"]),
                    "dense_test": Score(**value["dense_test"]),
                    "skipped": tuple((str(n), int(w), str(r)) for n, w, r in value["skipped"]),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a study context: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Stop:
    """A search that has stopped early, because its front did not grow any more (``study.stopping``).

    Attributes:
        trials: How many finished trials the study then had, baselines included.
        patience: Over how many trials of the search growth was looked for.
        growth: Of the front's area over these, relative.
    """

    trials: int
    patience: int
    growth: float

    def sentence(self, requested: int) -> str:
        """That it stopped, why, and how to go on, for people."""
        return (
            f"The search stopped after {self.trials} of {requested} trials: over the last {self.patience} trials that "
            f"it proposed, the front's area grew by {self.growth:.2%} (search.patience = {self.patience}). To go on, "
            "run the same command with --set search.patience=null, or with a larger number."
        )


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """Everything a study holds, as of reading.

    Attributes:
        context: What is searched.
        trials: In order of number; where the search stopped early, those before the stop.
        finalists: By trial.
        requested: Trials in all.
        stop: Where it stopped early, if it did.
        sweep: How the finalists' learning rate was chosen, if it was.
        failed_finalists: Trials that were to be finalists and could not be fine-tuned, by trial.
    """

    context: StudyContext
    trials: tuple[TrialRecord, ...]
    finalists: tuple[Finalist, ...]
    requested: int
    stop: Stop | None = None
    sweep: RateSweep | None = None
    failed_finalists: tuple[FailedFinalist, ...] = ()

    @property
    def left(self) -> int:
        """How many trials are still to be finished."""
        ended = sum(trial.state in ("complete", "failed") for trial in self.trials)
        return max(0, (self.stop.trials if self.stop else self.requested) - ended)

    @property
    def finished(self) -> bool:
        """Whether no trial is left to do."""
        return self.left == 0
