"""What a long run tells whoever watches: stages with progress, sentences, and news. The command line draws it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import ClassVar, Protocol


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
class ModelExported:
    """A model was exported and verified: its directory, and the trial it comes from, if any."""

    event: ClassVar[str] = "model"
    path: str
    trial: int | None = None


News = EpochEnded | TrialEnded | FrontSoFar | ModelExported


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
