"""The loop that every process of a study runs: take a point, evaluate it, tell the result, until enough are done.

A stored trial is one attempt at one point. Its states, and what leads from one to the next::

                       claim                       complete
      (enqueue) ─► WAITING ──────────┐        ┌──────────────► COMPLETE            final
          ▲                          ▼        │  fail, reason
          │        (propose) ─────► RUNNING ──┼──────────────► FAIL with `reason`  final
          │                                   │  reap: the owner is gone (the third time: fail)
          │ add a successor                   │  hand back: the owner was interrupted
          └─────────────────────── FAIL, lost ◄
                                              │  drop: not admitted
                                              └──────────────► FAIL with `dropped` does not count

A point and its attempts form a chain (``chains.py``). Workers do not talk to each other; these rules make any
number of them, dying at any time, reach exactly the requested number of finished points:

1. Trials are only added and finished, and whoever sees a trial sees all with lower numbers. So a decision that
   rests on lower numbers is the same for everyone, and final.
2. Whoever has taken a trial reads the study again, unless it has seen all with lower numbers, and drops it unless
   it is admitted: fewer than the requested number of points lie before its own (no overshoot), the search has not
   stopped before it (``stopping.py``), and nothing in its chain is finished or open before it (nothing twice). A
   proposed trial is stored together with its point and its owner, in one write.
3. Anyone may reap a running trial whose owner is gone (``leases.py``) and add the successor of a lost one. Two
   that do so at once add two successors; rule 2 drops one.
4. A result that arrives for a trial taken for lost is ignored; its successor's counts.
5. What is random depends on the study's seed and the point's place only: not on the worker, the attempt, or on
   what was killed before. Whether a point climbs to rung 1 depends on the finished points before it only.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.candidate import Candidate
from automl_prune.costs import Cost
from automl_prune.errors import StudyError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.seeding import derive_seed
from automl_prune.study.chains import Chain
from automl_prune.study.codec import (
    BEAT,
    CANDIDATE,
    DROPPED,
    HANDED_BACK,
    OWNER,
    PATIENCE,
    POINT,
    REASON,
    decode_context,
    directions,
    encode_result,
    objectives,
    template,
)
from automl_prune.study.distributions import distributions
from automl_prune.study.known import Known
from automl_prune.study.leases import Beat, Owner, Watch, reap
from automl_prune.study.ledger import Ledger, trial_id
from automl_prune.study.spec import Evaluate, Event, EventKind, Identify, OnEvent, Propose, StudySpec, failure
from automl_prune.study.stopping import Stagnation
from automl_prune.study.strategies import Proposer
from automl_prune.tasks.base import Score

HOPELESS_AFTER = 5
"""So many failures without one success are no bad luck: the set-up is broken."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """A running trial that is this worker's: its chain and the study as they were when it was admitted."""

    id: int
    chain: Chain
    chains: Sequence[Chain]


class Worker:
    """One worker of an existing study.

    Args:
        ledger: The study.
        spec: As it was started; ``requested`` and ``worker`` are this worker's own.
        propose: Makes a candidate of a point.
        identify: Says which candidates are one model; that is evaluated once.
        evaluate: Evaluates a candidate.
        on_event: Told what happens; what it raises stops the worker.
    """

    def __init__(
        self,
        ledger: Ledger,
        spec: StudySpec,
        propose: Propose,
        identify: Identify,
        evaluate: Evaluate,
        on_event: OnEvent,
    ) -> None:
        self._ledger = ledger
        self._spec = spec
        self._propose = propose
        self._identify = identify
        self._evaluate = evaluate
        self._on_event = on_event
        self._space = distributions(spec.parameters)
        self._proposer = Proposer(spec.strategy, self._space, directions(spec.context), spec.network, spec.context.cost)
        self._watch = Watch(spec.lease)
        self._known = Known(lambda trial: identify(self._candidate(trial)))
        stored = ledger.attributes()  # the same for all workers, to the last digit of the dense model's score
        self._stagnation = Stagnation(stored.get(PATIENCE), decode_context(stored, ledger.name))
        self._owner = Owner.mine(spec.device).to_json()

    def run(self) -> None:
        """Work until the requested number of trials is finished, by whomever, or the search stops early.

        Raises:
            StudyError: The storage stays away, or no trial at all succeeds.
            BaseException: What interrupted an evaluation; its trial has been handed back.
        """
        stored: Sequence[Chain] = self._ledger.chains()
        while True:
            chains = self._tidy(stored)
            if _finished(chains) >= self._wanted:
                return
            claim = self._claim(chains) or self._start(chains)
            if claim is None:  # all that is left is in the hands of others, who may yet lose it
                time.sleep(min(1.0, self._spec.lease / 8))
                stored = self._ledger.chains()
            else:
                stored = self._work(claim)

    # ---- taking a trial

    def _tidy(self, stored: Sequence[Chain]) -> Sequence[Chain]:
        """Reap what lost its worker, add the missing successors, and return the points that are asked for."""
        running = [(t, chain) for chain in stored for t in chain.attempts if t.state == OptunaState.RUNNING]
        stale = [(trial, chain) for trial, chain in running if self._is_abandoned(trial)]
        for trial, chain in stale:
            self._reap(trial, chain)
        chains = self._asked(self._ledger.chains() if stale else stored)
        lost = [chain for chain in chains if chain.state == "lost"]
        for chain in lost:
            self._ledger.add(chain.successor())
            self._tell("lost", chains, chain.index, "its worker is gone, or it was interrupted; it is tried again")
        return self._asked(self._ledger.chains()) if lost else chains

    @property
    def _wanted(self) -> int:
        """How many points are to be finished, as far as is known."""
        stop = self._stagnation.stop
        return min(self._spec.requested, stop.trials) if stop else self._spec.requested

    def _asked(self, chains: Sequence[Chain]) -> Sequence[Chain]:
        """The points that are asked for: those before the requested number, and before the search stops."""
        self._stagnation.look(chains[: self._spec.requested])
        return chains[: self._wanted]

    def _is_abandoned(self, trial: FrozenTrial) -> bool:
        # A worker between two trials has none: its own is one it stored without hearing so, in a storage that failed.
        return trial.user_attrs.get(OWNER) == self._owner or self._watch.is_stale(trial)

    def _reap(self, trial: FrozenTrial, chain: Chain) -> None:
        counts = trial.user_attrs.get(OWNER) != self._owner
        reason = reap(self._ledger, chain, trial, attempts=self._spec.attempts, counts=counts)
        if reason is not None:
            self._tell("failed", self._ledger.chains(), chain.index, reason)

    def _claim(self, chains: Sequence[Chain]) -> _Claim | None:
        """A waiting trial, baselines and second attempts, in the order of their points (rule 5)."""
        waiting = [trial for chain in chains for trial in chain.attempts if trial.state == OptunaState.WAITING]
        for trial in waiting:
            if self._ledger.claim(trial_id(trial)):
                self._ledger.annotate(trial_id(trial), **{OWNER: self._owner})
                claim = self._admit(trial_id(trial))
                if claim:
                    return claim
        return None

    def _start(self, chains: Sequence[Chain]) -> _Claim | None:
        """A new trial, at a point that the strategy proposes."""
        if len(chains) >= self._wanted:
            return None
        seed = derive_seed(self._spec.seed, "strategy", self._spec.worker, len(chains))
        point = self._proposer.propose(chains, seed)
        trial = template(OptunaState.RUNNING, point, {OWNER: self._owner})
        taken = self._ledger.add(trial)
        last = max((attempt.number for chain in chains for attempt in chain.attempts), default=-1)
        if self._ledger.has_number(taken, last + 1):  # nothing was stored since: what was read then decides
            return _Claim(taken, Chain(len(chains), (trial,)), chains)
        return self._admit(taken)

    def _admit(self, taken: int) -> _Claim | None:
        """Rule 2: keep the trial or drop it."""
        chains = self._ledger.chains()
        chain, trial = next((c, t) for c in chains for t in c.attempts if trial_id(t) == taken)
        asked = self._asked(chains)
        if chain.index >= len(asked):
            self._ledger.fail(taken, **{DROPPED: "enough points lie before it"})
        elif not chain.accepts(trial):
            self._ledger.fail(taken, **{DROPPED: "another attempt at this point came first"})
        else:
            return _Claim(taken, chain, asked)
        return None

    # ---- working on it

    def _work(self, claim: _Claim) -> Sequence[Chain]:
        """Evaluate a trial and store what comes of it; the study as it is then."""
        try:
            with Beat(lambda count: self._ledger.annotate(claim.id, **{BEAT: count}), self._spec.lease / 6):
                outcome = self._outcome(claim)
            if isinstance(outcome, str):
                return self._fail(claim, outcome)
            return self._complete(claim, *outcome)
        except StudyError:
            raise  # the storage, or everyone's set-up: there is nobody to hand the trial back to
        except BaseException:
            self._hand_back(claim)
            raise

    def _outcome(self, claim: _Claim) -> tuple[Evaluation, int | None] | str:
        """An evaluation and the point it is reused from, or the reason why there is none."""
        self._known.read(claim.chains)
        index = claim.chain.index
        self._tell("started", claim.chains, index)
        try:
            candidate = self._candidate(claim.chain.current)
            plan = self._identify(candidate)
            if (poison := self._known.poison.get(plan)) is not None:
                return f"it is the model of trial {poison}, whose worker died every time, so it is not tried"
            if (source := self._known.by_plan.get(plan)) is not None:
                return replace(self._known.by_point[source], candidate=candidate), source
            seed = derive_seed(self._spec.seed, "evaluation", index)
            evaluation = self._evaluate(candidate, seed, self._climb(index))
            objectives(evaluation, self._spec.context)
            return evaluation, None
        except Exception as error:  # this candidate's trouble, until all have it
            return failure(error)

    def _candidate(self, trial: FrozenTrial) -> Candidate:
        given = trial.user_attrs.get(CANDIDATE)
        return Candidate.from_json(given) if given else self._propose(trial.user_attrs[POINT])

    def _climb(self, index: int) -> Climb:
        """The rule for one point: it looks at what lies before the point alone, so it decides alike on every resume."""
        before, context, promotion = self._known.before(index), self._spec.context, self._spec.promotion

        def climb(score: Score, costs: Mapping[str, Cost]) -> bool:
            return promotion is not None and promotion.climbs(score, costs, before, context)

        return climb

    def _complete(self, claim: _Claim, evaluation: Evaluation, source: int | None) -> Sequence[Chain]:
        context = self._spec.context
        result = encode_result(evaluation, context, source)
        told = self._ledger.complete(claim.id, objectives(evaluation, context), result)
        stored = self._ledger.chains()
        kind: EventKind = "ignored" if not told else "complete" if source is None else "reused"
        self._tell(kind, stored, claim.chain.index, evaluation=evaluation)
        return stored

    def _fail(self, claim: _Claim, reason: str) -> Sequence[Chain]:
        self._ledger.fail(claim.id, **{REASON: reason})
        stored = self._ledger.chains()
        chains = stored[: self._spec.requested]
        self._tell("failed", chains, claim.chain.index, reason)
        failed = sum(chain.state == "failed" for chain in chains)
        if failed >= min(HOPELESS_AFTER, self._spec.requested) and not any(c.state == "complete" for c in chains):
            raise StudyError(
                f"all {failed} trials failed so far, the last one with: {reason}; "
                "mend that, then run the same command again to go on"
            )
        return stored

    def _hand_back(self, claim: _Claim) -> None:
        """Let anyone take the trial again, as if this attempt had not been."""
        if self._ledger.fail(claim.id, **{HANDED_BACK: True}):
            chains = self._ledger.chains()
            chain = chains[claim.chain.index]
            if chain.state == "lost":
                self._ledger.add(chain.successor())
            self._tell("handed_back", chains, chain.index)

    def _tell(
        self,
        kind: EventKind,
        chains: Sequence[Chain],
        trial: int,
        message: str = "",
        evaluation: Evaluation | None = None,
    ) -> None:
        requested = self._spec.requested
        self._on_event(Event(kind, _finished(chains[:requested]), requested, trial, message, evaluation))


def _finished(chains: Sequence[Chain]) -> int:
    return sum(chain.finished for chain in chains)
