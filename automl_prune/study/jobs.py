"""Jobs that a study hands out besides its trials, to whoever is there: each is done once, and none is lost.

They are the trials of a second study beside the first, so a job is taken, kept alive, tried again and set aside as a
trial is (``chains``, ``leases``). A job is known by its key; what is offered twice is there once. One more trial stands
for the process that offers jobs, the host: while it gives signs of life, workers wait for what it offers next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.errors import StudyError
from automl_prune.study.chains import Chain
from automl_prune.study.codec import (
    BEAT,
    DROPPED,
    HANDED_BACK,
    OFFERED,
    ORIGIN,
    OWNER,
    POINT,
    POISON,
    REASON,
    RESULT,
    SOURCE,
    template,
)
from automl_prune.study.crew import Member, member_of
from automl_prune.study.leases import Beat, Owner, Watch, reap
from automl_prune.study.ledger import JOBS, Ledger, exists, trial_id
from automl_prune.study.record import TrialState
from automl_prune.study.spec import failure
from automl_prune.study.storage import StudyStorage

Do = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Does a job: what was ordered -> what came of it, both JSON-ready; what it raises is taken as ``failure`` says."""

_HOST: Final = "host"


@dataclass(frozen=True, slots=True)
class Job:
    """A job that is offered.

    Attributes:
        key: What it is known by.
        order: What is to be done.
        state: As of reading.
        result: What came of it, when it is complete.
        reason: Why it failed, when it did.
        poison: Whether it failed because every worker died of it.
        member: Who works on it, if anyone does.
    """

    key: str
    order: Mapping[str, Any]
    state: TrialState
    result: Mapping[str, Any] | None = None
    reason: str | None = None
    poison: bool = False
    member: Member | None = None

    @property
    def finished(self) -> bool:
        """Complete or finally failed."""
        return self.state in ("complete", "failed")


class Jobs:
    """The jobs of a study, as one process sees them.

    Args:
        storage: Where the study lives.
        study: Its name.
        device: What this process computes on, for those who ask.
        attempts: How often a job is tried in all when it takes its worker with it.
        lease: Seconds without a sign of life after which a process on another machine counts as gone.
        host: Whether this process offers jobs. Its death is not held against the job it works on: whoever starts it
            again wants to go on.

    Attributes:
        seen: The jobs as they were looked at last.

    Raises:
        StudyError: The study hands out no jobs (``hands_out``), and this process is no host.
    """

    def __init__(
        self,
        storage: StudyStorage,
        study: str,
        device: str = "",
        *,
        attempts: int = 3,
        lease: float = 60.0,
        host: bool = False,
    ) -> None:
        if host:
            Ledger.create(storage, study + JOBS, (StudyDirection.MINIMIZE,))
        self._ledger = Ledger(storage, study + JOBS)
        self._aside = Ledger(storage, study + JOBS)  # for the thread of the beat
        self._owner = Owner.mine(device).to_json()
        self._attempts, self._lease = attempts, lease
        self._claimed: dict[str, Any] = {OWNER: self._owner} | ({HANDED_BACK: True} if host else {})
        self._watch = Watch(lease)
        self._hosted: int | None = None
        self.seen: Sequence[Job] = ()

    # ---- the host

    @contextmanager
    def hosting(self) -> Iterator[None]:
        """Be the host while the block runs: nothing is offered yet, and when it ends well, all is concluded.

        Raises:
            StudyError: The study has a host that lives; one on another machine is given a lease to show it.
        """
        for trial in self._ledger.trials():
            if trial.user_attrs.get(ORIGIN) == _HOST and trial.state == OptunaState.RUNNING:
                self._bury(trial)
        self._ledger.set_attribute(OFFERED, [])
        taken = self._ledger.add(template(OptunaState.RUNNING, {}, {ORIGIN: _HOST, OWNER: self._owner}))
        self._hosted = taken
        with Beat(lambda count: self._aside.annotate(taken, **{BEAT: count}), self._lease / 6):
            try:
                yield
            except StudyError:
                raise
            except BaseException:
                self._ledger.fail(taken, **{HANDED_BACK: True})
                raise
        self.dismiss()

    def _bury(self, host: FrozenTrial) -> None:
        """End an earlier host, once it is known to be gone."""
        owner, beat = Owner.from_json(host.user_attrs.get(OWNER)), host.user_attrs.get(BEAT)
        mine = owner is not None and owner.is_here() and owner.pid == os.getpid()  # of a search here that failed
        while not mine and not self._watch.is_stale(host):
            if (owner is not None and owner.is_here()) or host.user_attrs.get(BEAT) != beat:
                who = f"process {owner.pid} on {owner.host}" if owner else "another process"
                raise StudyError(
                    f"{who} is searching in this study; join it with: automl-prune worker, or wait until it has ended"
                )
            time.sleep(min(2.0, self._lease / 8))
            host = next(trial for trial in self._ledger.trials() if trial.number == host.number)
            if host.state != OptunaState.RUNNING:
                return  # it has ended meanwhile
        self._ledger.fail(trial_id(host))

    def dismiss(self) -> None:
        """Let the workers go: this host has no more jobs."""
        if self._hosted is not None:
            self._ledger.complete(self._hosted, (0.0,), {})

    def offer(self, orders: Mapping[str, Mapping[str, Any]]) -> None:
        """Offer these jobs, by key, in place of those that were offered; one that has failed may be tried again."""
        chains = self._ledger.chains()
        offered = []
        for key, order in orders.items():
            known = [chain for chain in chains if chain.current.user_attrs.get(ORIGIN) == key]
            last = known[-1] if known else None
            if last is None or last.state == "failed":
                offered.append(f"{key} {len(known)}")
                self._ledger.add(template(OptunaState.WAITING, order, {ORIGIN: key, SOURCE: offered[-1]}))
            else:
                offered.append(last.current.user_attrs[SOURCE])
        self._ledger.set_attribute(OFFERED, offered)

    # ---- whoever works

    def attend(self, do: Do, patience: float, tick: Callable[[], object] = lambda: None) -> bool:
        """Do jobs until the host has concluded.

        Args:
            do: Does one.
            patience: Seconds to wait for a host that is gone.
            tick: As in ``work``.

        Returns:
            Whether the host has concluded, or there never was one; False when it stayed away.
        """
        alone = time.monotonic()
        while True:
            self.work(do, tick)
            hosts = [trial for trial in self._ledger.trials() if trial.user_attrs.get(ORIGIN) == _HOST]
            if not hosts or hosts[-1].state == OptunaState.COMPLETE:
                return True
            if hosts[-1].state == OptunaState.RUNNING and not self._watch.is_stale(hosts[-1]):
                alone = time.monotonic()
            elif time.monotonic() - alone >= patience:
                return False
            time.sleep(min(2.0, self._lease / 8))

    def work(self, do: Do, tick: Callable[[], object] = lambda: None) -> None:
        """Do jobs until every one that is offered is finished, by whomever.

        Args:
            do: Does one.
            tick: Called now and then while others work.

        Raises:
            BaseException: What interrupted a job; it has been handed back.
        """
        while True:
            chains = self._tidy()
            tick()
            if all(chain.finished for chain in chains):
                return
            for chain in chains:
                if chain.state == "waiting" and self._take(chain):
                    self._do(chain, do)
                    break
            else:
                time.sleep(min(1.0, self._lease / 8))

    def look(self) -> Sequence[Job]:
        """The jobs as they are now."""
        self._see(_offered(self._ledger))
        return self.seen

    def _see(self, chains: Sequence[Chain]) -> None:
        self.seen = tuple(_job(chain) for chain in chains)

    def _tidy(self) -> Sequence[Chain]:
        """Reap what lost its worker, add the missing successors, and return the jobs that are offered."""
        changed = False
        for chain in _offered(self._ledger):
            trial = chain.current
            if chain.state == "running" and (trial.user_attrs.get(OWNER) == self._owner or self._watch.is_stale(trial)):
                self._reap(chain)
            elif chain.state == "lost":
                self._ledger.add(chain.successor())
            else:
                continue
            changed = True
        if changed:
            return self._tidy()
        chains = _offered(self._ledger)
        self._see(chains)
        return chains

    def _reap(self, chain: Chain) -> None:
        trial = chain.current
        counts = HANDED_BACK not in trial.user_attrs and trial.user_attrs.get(OWNER) != self._owner
        reap(self._ledger, chain, trial, attempts=self._attempts, counts=counts)

    def _take(self, chain: Chain) -> bool:
        """Claim a waiting job; an attempt that another one came before is dropped (rule 2 of ``worker``)."""
        taken = trial_id(chain.current)
        if not self._ledger.claim(taken):
            return False
        self._ledger.annotate(taken, **self._claimed)
        now = next(known for known in self._ledger.chains() if known.index == chain.index)
        trial = next(attempt for attempt in now.attempts if trial_id(attempt) == taken)
        if not now.accepts(trial):
            self._ledger.fail(taken, **{DROPPED: "another attempt at this job came first"})
            return False
        return True

    def _do(self, chain: Chain, do: Do) -> None:
        taken = trial_id(chain.current)

        def beat(count: int) -> None:
            self._aside.annotate(taken, **{BEAT: count})
            self._see(_offered(self._aside))

        try:
            with Beat(beat, self._lease / 6):
                outcome = _outcome(do, chain.current.user_attrs[POINT])
            if isinstance(outcome, str):
                self._ledger.fail(taken, **{REASON: outcome})
            else:
                self._ledger.complete(taken, (0.0,), outcome)
        except BaseException:
            with suppress(StudyError):  # the storage may be what fails
                self._ledger.fail(taken, **{HANDED_BACK: True})
            raise


def read_jobs(storage: StudyStorage, study: str | None) -> tuple[Job, ...]:
    """The jobs that a study offers, or offered last; nothing is written."""
    name = Ledger(storage, study).name
    if not hands_out(storage, name):
        return ()
    return tuple(_job(chain) for chain in _offered(Ledger(storage, name + JOBS)))


def hands_out(storage: StudyStorage, study: str) -> bool:
    """Whether a study has a host, or had one: only then can there be jobs."""
    return exists(storage, study + JOBS)


def _outcome(do: Do, order: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """What came of a job, or the reason why nothing did."""
    try:
        return do(order)
    except Exception as error:
        return failure(error)


def _offered(ledger: Ledger) -> Sequence[Chain]:
    names = ledger.attributes().get(OFFERED, [])
    known = {chain.current.user_attrs.get(SOURCE): chain for chain in ledger.chains()}
    return [known[name] for name in names if name in known]


def _job(chain: Chain) -> Job:
    attributes, state = chain.current.user_attrs, chain.state
    return Job(
        key=str(attributes[ORIGIN]),
        order=attributes[POINT],
        state="waiting" if state == "lost" else state,
        result=attributes.get(RESULT) if state == "complete" else None,
        reason=attributes.get(REASON) if state == "failed" else None,
        poison=POISON in attributes,
        member=member_of(chain) if state == "running" else None,
    )
