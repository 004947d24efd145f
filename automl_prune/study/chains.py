"""The points of a study as chains of attempts: which count, which are open, which were lost with their worker.

Pure functions of the stored trials, so every worker that reads the same trials comes to the same view without
talking to the others. Stored trials are only ever added and finished, never changed back, and a trial's number
is given by the storage in one total order: a decision that rests on lower-numbered trials is final.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.study.codec import (
    CANDIDATE,
    DROPPED,
    HANDED_BACK,
    ORIGIN,
    POINT,
    REASON,
    RETRY_OF,
    ROOT,
    SEARCH,
    SOURCE,
    template,
)

ChainState = Literal["complete", "failed", "running", "waiting", "lost"]


@dataclass(frozen=True, slots=True)
class Chain:
    """One point of the study and all attempts to evaluate it.

    Attributes:
        index: Its place in the study, from 0; the same in every run, whatever was killed in between.
        attempts: In order of their numbers, at least one.
    """

    index: int
    attempts: tuple[FrozenTrial, ...]

    @property
    def state(self) -> ChainState:
        """``lost`` is what waits for a successor: every attempt died with its worker or was handed back."""
        return _state_of(self.current)

    @property
    def current(self) -> FrozenTrial:
        """The attempt that decides the state; of equals the lowest number, of lost ones the last."""
        order = {"complete": 0, "failed": 1, "running": 2, "waiting": 3, "lost": 4}
        best = min(order[_state_of(trial)] for trial in self.attempts)
        equals = [trial for trial in self.attempts if order[_state_of(trial)] == best]
        return equals[-1] if best == order["lost"] else equals[0]

    @property
    def deaths(self) -> tuple[FrozenTrial, ...]:
        """The attempts that ended with their worker; those handed back are none."""
        return tuple(t for t in self.attempts if _state_of(t) == "lost" and HANDED_BACK not in t.user_attrs)

    @property
    def attempt(self) -> int:
        """Which attempt the current one is, from 1; what was handed back does not count."""
        return 1 + sum(trial.number < self.current.number for trial in self.deaths)

    @property
    def finished(self) -> bool:
        """Complete or finally failed."""
        return self.state in ("complete", "failed")

    def accepts(self, trial: FrozenTrial) -> bool:
        """Whether this attempt is the one to be worked on: nothing is finished or open before it."""
        return not self.finished and all(
            _state_of(other) == "lost" for other in self.attempts if other.number < trial.number
        )

    def successor(self) -> FrozenTrial:
        """A waiting trial that tries a lost chain again; a handed-back attempt does not count as one."""
        lost = self.current
        attributes = {
            ORIGIN: lost.user_attrs.get(ORIGIN, SEARCH),
            ROOT: self.attempts[0].number,
            RETRY_OF: lost.number,
        }
        attributes |= {key: lost.user_attrs[key] for key in (CANDIDATE, SOURCE) if key in lost.user_attrs}
        return template(OptunaState.WAITING, lost.user_attrs.get(POINT, {}), attributes)


def chains_of(trials: Sequence[FrozenTrial]) -> tuple[Chain, ...]:
    """The chains of a study in the order of their first attempts; dropped trials belong to none."""
    groups: dict[str | int, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if DROPPED not in trial.user_attrs:
            groups.setdefault(_key(trial), []).append(trial)
    return tuple(Chain(index, tuple(attempts)) for index, attempts in enumerate(groups.values()))


def _key(trial: FrozenTrial) -> str | int:
    # A given point is known by what it is, so that two processes that start one study enqueue it once in effect.
    name = str(trial.user_attrs.get(SOURCE, trial.user_attrs.get(ORIGIN, SEARCH)))
    return name if name != SEARCH else int(trial.user_attrs.get(ROOT, trial.number))


def _state_of(trial: FrozenTrial) -> ChainState:
    if trial.state == OptunaState.COMPLETE:
        return "complete"
    if trial.state == OptunaState.RUNNING:
        return "running"
    if trial.state == OptunaState.WAITING:
        return "waiting"
    return "failed" if REASON in trial.user_attrs else "lost"
