"""Who works on a trial, and how anyone can tell that they no longer do.

A worker signs each trial it takes with its ``Owner`` and renews the trial's ``beat`` from a thread. An observer on
the same host sees at once when the process is gone; from elsewhere, or when nothing can be known, a beat that
stays unchanged for a lease, measured on the observer's own monotonic clock, means the same. Clocks of different
machines are never compared, and time in which the observer could not look does not count: after an outage of the
storage everyone gets the chance to give a sign.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial

from automl_prune.errors import StudyError
from automl_prune.study.chains import Chain
from automl_prune.study.codec import BEAT, HANDED_BACK, OWNER, POISON, REASON
from automl_prune.study.ledger import Ledger, trial_id


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, told apart from every other one that ever ran.

    Attributes:
        host: Host name.
        boot: Identifies the boot of the host and the namespace of process ids (a container has its own); empty
            where the system does not say.
        pid: Process id.
        started: Start of the process in the system's own ticks; empty where the system does not say.
        device: What it computes on, for people.
        since: When it joined the study, by its own clock, for people.
    """

    host: str
    boot: str
    pid: int
    started: str
    device: str = ""
    since: str = ""

    @classmethod
    def mine(cls, device: str = "") -> Owner:
        """The owner that this process is."""
        pid, now = os.getpid(), datetime.now(UTC).isoformat(timespec="seconds")
        return cls(socket.gethostname(), _boot(), pid, _started(pid) or "", device, now)

    def is_gone(self) -> bool:
        """Whether this process is known to have ended; False also when that cannot be known from here."""
        if self.host != socket.gethostname() or not self.boot:
            return False
        return self.boot == _boot() and _started(self.pid) != self.started

    def is_here(self) -> bool:
        """Whether this process is known to be alive on this machine."""
        return self.host == socket.gethostname() and self.boot == _boot() != "" and not self.is_gone()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Owner | None:
        """Rebuild an owner; None for anything else."""
        try:
            return cls(**value)
        except TypeError:
            return None


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""  # not Linux: the lease decides


def _started(pid: int) -> str | None:
    """Start time of a living process; None when there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and parentheses
    state, started = fields[0], fields[19]
    return None if state in "ZX" else started


def reap(ledger: Ledger, chain: Chain, trial: FrozenTrial, *, attempts: int, counts: bool) -> str | None:
    """Finish a running trial that nobody works on: lost, or failed when it has cost too many workers.

    Args:
        ledger: Of the study.
        chain: The trial's.
        trial: It.
        attempts: How often a chain is tried in all when its workers die of it.
        counts: Whether this death does; otherwise the trial is handed back.

    Returns:
        Why the chain is set aside, if it is.
    """
    if not counts:
        ledger.fail(trial_id(trial), **{HANDED_BACK: True})
    elif len(chain.deaths) + 1 < attempts:
        ledger.fail(trial_id(trial))
    else:
        reason = _cause_of_death([*chain.deaths, trial])
        ledger.fail(trial_id(trial), **{POISON: True, REASON: reason})
        return reason
    return None


def _cause_of_death(attempts: Sequence[FrozenTrial]) -> str:
    """Why what was tried so often is set aside: every attempt ended with its worker."""
    owners = [Owner.from_json(trial.user_attrs.get(OWNER)) for trial in attempts]
    known = ", ".join(f"process {owner.pid} on {owner.host}" for owner in owners if owner)
    return (
        f"its worker died {len(attempts)} times ({known}), so it is set aside; when it was out of memory, the "
        "system's log says so (dmesg): lower data.batch_size"
    )


class Watch:
    """Tells which running trials nobody works on any more; remembers what it has seen.

    Args:
        lease: Seconds without a new beat after which an owner counts as gone.
        clock: Seconds that never run backwards.
    """

    def __init__(self, lease: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lease = lease
        self._clock = clock
        self._seen: dict[int, tuple[object, float, float]] = {}  # by trial: last sign, seconds of silence, last look

    def is_stale(self, trial: FrozenTrial) -> bool:
        """Whether a running trial has lost its worker."""
        owner = Owner.from_json(trial.user_attrs.get(OWNER))
        if owner is not None and owner.is_gone():
            return True
        sign = (owner, trial.user_attrs.get(BEAT))
        now = self._clock()
        known, silence, looked = self._seen.get(trial.number, (None, 0.0, now))
        silence = silence + min(now - looked, self._lease / 3) if known == sign else 0.0
        self._seen[trial.number] = (sign, silence, now)
        return silence >= self._lease


class Beat:
    """Calls ``write`` with a growing number from a thread, for as long as the block runs.

    The thread ends by itself when the trial turns out to be finished; other failures of the storage are left to
    the next beat, because a missed one only brings the lease nearer.
    """

    def __init__(self, write: Callable[[int], object], interval: float) -> None:
        self._write = write
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="study-beat", daemon=True)

    def __enter__(self) -> Beat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5)  # a storage that hangs must not keep the worker

    def _run(self) -> None:
        count = 0
        while not self._stop.wait(self._interval):
            count += 1
            try:
                self._write(count)
            except UpdateFinishedTrialError:
                return
            except (StudyError, OSError):
                continue
