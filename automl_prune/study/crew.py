"""Who works on a study at this moment, and how fast it goes."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from optuna.trial import FrozenTrial

from automl_prune.study.chains import Chain
from automl_prune.study.codec import OWNER, reused_from
from automl_prune.study.leases import Owner
from automl_prune.study.ledger import Ledger
from automl_prune.study.storage import StudyStorage

Presence = Literal["here", "gone", "elsewhere"]

_RECENT = 20
"""So many of the last trials say how long one takes."""


@dataclass(frozen=True, slots=True)
class Member:
    """A worker with a trial.

    Attributes:
        host: Its machine.
        pid: Its process.
        device: What it computes on; empty when it did not say.
        since: When it joined, by its own clock; empty when it did not say.
        trial: What it works on.
        run: Which long fine-tuning of that trial it does, when it is one.
        attempt: Which attempt at that trial, from 1.
        seconds: How long it has worked on it.
        presence: ``here`` is a living process of this machine, ``gone`` one that has died (the next worker that looks
            tries its trial again), ``elsewhere`` one of another machine, which is taken for gone when it gives no
            sign for a lease.
    """

    host: str
    pid: int
    device: str
    since: str
    trial: int
    attempt: int
    seconds: float
    presence: Presence
    run: int | None = None


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a study.

    Attributes:
        members: Those with a trial, by trial.
        retries: Attempts that were lost with their worker and made again.
        seconds_per_trial: Median time of the last trials that were evaluated; None without one.
    """

    members: tuple[Member, ...]
    retries: int
    seconds_per_trial: float | None

    @property
    def trials_per_hour(self) -> float | None:
        """What the members that are not gone do in an hour at that pace; None when nobody works or nothing is known."""
        working = sum(member.presence != "gone" for member in self.members)
        return 3600 * working / self.seconds_per_trial if working and self.seconds_per_trial else None

    def seconds_left(self, trials: int) -> float | None:
        """How long the members take for so many more trials."""
        return 3600 * trials / self.trials_per_hour if self.trials_per_hour else None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return {
            "workers": [asdict(member) for member in self.members],
            "retries": self.retries,
            "seconds_per_trial": self.seconds_per_trial,
            "trials_per_hour": self.trials_per_hour,
        }


def read_crew(storage: StudyStorage, name: str | None, requested: int) -> Crew:
    """Who works on the first ``requested`` trials; nothing is written."""
    chains = Ledger(storage, name).chains()[:requested]
    done = [chain.current for chain in chains if chain.state == "complete"]
    worked = sorted((t for t in done if reused_from(t) is None and t.datetime_complete), key=_end)
    seconds = [(_end(t) - t.datetime_start).total_seconds() for t in worked[-_RECENT:] if t.datetime_start]
    return Crew(
        members=tuple(member_of(chain) for chain in chains if chain.state == "running"),
        retries=sum(len(chain.deaths) for chain in chains),
        seconds_per_trial=statistics.median(seconds) if seconds else None,
    )


def _end(trial: FrozenTrial) -> datetime:
    assert trial.datetime_complete is not None
    return trial.datetime_complete


def member_of(chain: Chain) -> Member:
    """Who works on a running chain; a job's trial is what its order names (``jobs``)."""
    trial = chain.current
    owner = Owner.from_json(trial.user_attrs.get(OWNER)) or Owner("unknown", "", 0, "")
    started = trial.datetime_start or datetime.now()
    return Member(
        host=owner.host,
        pid=owner.pid,
        device=owner.device,
        since=owner.since,
        trial=chain.index,
        attempt=len(chain.deaths) + 1,
        seconds=max(0.0, (datetime.now() - started).total_seconds()),
        presence="gone" if owner.is_gone() else "here" if owner.is_here() else "elsewhere",
    )
