"""The points of a study as chains of attempts: which count, which are open, which were lost with their worker.

Pure functions of the stored trials, so every worker that reads the same trials comes to the same view without
talking to the others. Stored trials are only ever added and finished, never changed back, and a trial's number
is given by the storage in one total order: a decision that rests on lower-numbered trials is final.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
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
        current: The attempt that decides the state; of equals the lowest number, of lost ones the last.
        state: ``lost`` is what waits for a successor: every attempt died with its worker or was handed back.
    """

    index: int
    attempts: tuple[FrozenTrial, ...]
    current: FrozenTrial = field(init=False)
    state: ChainState = field(init=False)

    def __post_init__(self) -> None:
        order = {"complete": 0, "failed": 1, "running": 2, "waiting": 3, "lost": 4}
        best = min(order[_state_of(trial)] for trial in self.attempts)
        equals = [trial for trial in self.attempts if order[_state_of(trial)] == best]
        current = equals[-1] if best == order["lost"] else equals[0]
        object.__setattr__(self, "current", current)
        object.__setattr__(self, "state", _state_of(current))

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


def chains_of(trials: Iterable[FrozenTrial]) -> tuple[Chain, ...]:
    """The chains of a study in the order of their first attempts; dropped trials belong to none."""
    return _Grouped().joined(trials)


class GrowingChains:
    """The chains of a study that is looked at again and again: what is finished is grouped once.

    Grouping all trials at every look took longer than reading them, in a study of some thousand.
    """

    def __init__(self) -> None:
        self._finished = _Grouped()
        self._count = 0

    def of(self, trials: Sequence[FrozenTrial]) -> tuple[Chain, ...]:
        """As ``chains_of``.

        Args:
            trials: All there are, in order of their numbers.
        """
        while self._count < len(trials) and trials[self._count].state.is_finished():
            self._finished.add(trials[self._count])
            self._count += 1
        return self._finished.joined(trials[self._count :])


@dataclass(slots=True)
class _Grouped:
    """Chains, and the place of each by its key."""

    chains: list[Chain] = field(default_factory=list)
    places: dict[str | int, int] = field(default_factory=dict)

    def add(self, trial: FrozenTrial) -> None:
        """Put the next trial into its chain; a dropped one belongs to none."""
        if DROPPED in trial.user_attrs:
            return
        place = self.places.setdefault(_key(trial), len(self.chains))
        if place == len(self.chains):
            self.chains.append(Chain(place, (trial,)))
        else:
            self.chains[place] = Chain(place, (*self.chains[place].attempts, trial))

    def joined(self, trials: Iterable[FrozenTrial]) -> tuple[Chain, ...]:
        """The chains with more trials in them; this is not changed."""
        both = _Grouped(self.chains.copy(), self.places.copy())
        for trial in trials:
            both.add(trial)
        return tuple(both.chains)


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
