"""What a long run tells whoever watches: stages with progress, sentences, and news. The command line draws it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """An epoch of the dense model's training: number, epochs in all, mean loss, score on validation data."""

    event: ClassVar[str] = "epoch"
    epoch: int
    epochs: int
    loss: float
    score: float


@dataclass(frozen=True, slots=True)
class TrialEnded:
    """A trial of the search is over.

    Attributes:
        trial: Its number.
        state: ``complete`` or ``failed``.
        origin: ``search``, or the baseline it is.
        finished: Trials finished so far, by all workers.
        requested: Trials to be finished in all.
        score: On validation data; None when it failed, as are ``costs`` and ``feasible``.
        costs: By metric, in its unit.
        feasible: Whether every budget holds.
        reason: Why it failed.
        rung: The one that ``score`` is of; scores of different rungs do not compare.
        untrained: The score at rung 0, which every complete trial has.
    """

    event: ClassVar[str] = "trial"
    trial: int
    state: str
    origin: str
    finished: int
    requested: int
    score: float | None = None
    costs: Mapping[str, float] | None = None
    feasible: bool | None = None
    reason: str | None = None
    rung: int | None = None
    untrained: float | None = None


@dataclass(frozen=True, slots=True)
class SearchStarted:
    """A search begins, or goes on where an earlier session left it.

    Attributes:
        study: Its name.
        config: As it was started, without secrets; empty for a search from Python.
        environment: Versions, processor, threads.
        metric: Name of the score.
        percent: Whether people read it in per cent.
        higher_is_better: Direction of the score.
        cost: Name of the cost on the front's other axis.
        limits: The budget: absolute upper bounds by cost.
        dense_costs: Of the dense model.
        dense_val: Score of the dense model on validation data.
        dense_test: The same on test data.
        requested: Trials to be finished in all.
        earlier: Those that earlier sessions finished, in order of number; they are not told again.
    """

    event: ClassVar[str] = "study"
    study: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    metric: str
    percent: bool
    higher_is_better: bool
    cost: str
    limits: Mapping[str, float]
    dense_costs: Mapping[str, float]
    dense_val: float
    dense_test: float
    requested: int
    earlier: tuple[TrialEnded, ...]


@dataclass(frozen=True, slots=True)
class Spot:
    """A model in a plane of cost and score: its trial, cost as a fraction of the dense model's, score, origin."""

    trial: int
    cost_ratio: float
    score: float
    origin: str


@dataclass(frozen=True, slots=True)
class FrontSoFar:
    """The search's front, told after every trial.

    Attributes:
        metric: Name of the score.
        percent: Whether people read it in per cent.
        higher_is_better: Direction of the score.
        cost: Name of the cost on the other axis.
        points: The front, in ascending order of cost.
        others: Feasible models that are not on it.
    """

    event: ClassVar[str] = "front"
    metric: str
    percent: bool
    higher_is_better: bool
    cost: str
    points: tuple[Spot, ...]
    others: tuple[Spot, ...]


@dataclass(frozen=True, slots=True)
class FinalistTrained:
    """A finalist's scores are known, from this session's training or an earlier one's.

    Attributes:
        trial: Number of its trial.
        origin: ``search``, or the baseline it is.
        seeds: How often it was fine-tuned.
        val: Mean score on validation data.
        val_interval: Its 95 % interval; None when nothing is known of the error.
        test: Mean score on test data.
        test_interval: Likewise.
    """

    event: ClassVar[str] = "finalist"
    trial: int
    origin: str
    seeds: int
    val: float
    val_interval: tuple[float, float] | None
    test: float
    test_interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class ModelExported:
    """A model was exported and verified: its directory, and the trial it comes from, if any."""

    event: ClassVar[str] = "model"
    path: str
    trial: int | None = None


@dataclass(frozen=True, slots=True)
class SearchEnded:
    """A search is done, and everything it leaves is written.

    Attributes:
        run_dir: Where.
        report: The report in it.
        verdict: The answer in two sentences.
        front: Rows of front.json, in ascending order of cost.
    """

    event: ClassVar[str] = "result"
    run_dir: str
    report: str
    verdict: str
    front: tuple[Mapping[str, Any], ...]


News = EpochEnded | SearchStarted | TrialEnded | FrontSoFar | FinalistTrained | ModelExported | SearchEnded


class Stage(Protocol):
    """A running stage: call it as (steps done, steps in all), with a short note if there is news."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """The stage has come this far."""
        ...


class View(Protocol):
    """Where progress goes."""

    def stage(self, title: str) -> AbstractContextManager[Stage]:
        """A context manager that shows a stage while its block runs and yields its ``Stage``."""
        ...

    def say(self, message: str) -> None:
        """Show one sentence that stays."""
        ...

    def tell(self, news: News) -> None:
        """Something happened that a display draws or a machine reads; what people must know is said as well."""
        ...


class Silent:
    """Shows nothing; the default of the Python interface."""

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """A stage nobody sees."""
        yield _ignore

    def say(self, message: str) -> None:
        """Nothing."""

    def tell(self, news: News) -> None:
        """Nothing."""


def _ignore(done: int, total: int, note: str = "") -> None:
    pass


class Pace:
    """How long a stage still takes, from how fast it has been."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self._base: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self.start

    def left(self, done: int, total: int) -> float | None:
        """Seconds until ``total``; None before a step is known to have taken its time.

        A stage that first tells of several steps was resumed: an earlier session did those.
        """
        if self._base is None:
            self._base = (0, self.start) if done <= 1 else (done, time.monotonic())
        before, since = self._base
        here = done - before
        return (time.monotonic() - since) / here * (total - done) if here > 0 else None


_proof: View = Silent()  # the type checker proves that it is one
