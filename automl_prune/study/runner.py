"""Starting, resuming and reading studies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from automl_prune.candidate import Candidate
from automl_prune.errors import StudyError
from automl_prune.study.baselines import Baseline, affordable
from automl_prune.study.chains import Chain
from automl_prune.study.codec import (
    CANDIDATE,
    CONTEXT,
    FAILED_FINALIST,
    FINALIST,
    IDENTITY,
    ORIGIN,
    PATIENCE,
    REQUESTED,
    SOURCE,
    SWEEP,
    decode_context,
    decode_failed_finalists,
    decode_finalists,
    decode_sweep,
    differences,
    directions,
    template,
    trial_record,
)
from automl_prune.study.distributions import distributions
from automl_prune.study.ledger import Ledger, exists
from automl_prune.study.record import FailedFinalist, Finalist, RateSweep, StudyRecord, TrialRecord, TrialState
from automl_prune.study.spec import Evaluate, Event, Identify, OnEvent, Propose, StudySpec
from automl_prune.study.stopping import Stagnation
from automl_prune.study.storage import StudyStorage
from automl_prune.study.worker import Worker


def run_study(
    spec: StudySpec,
    storage: StudyStorage,
    propose: Propose,
    evaluate: Evaluate,
    on_event: OnEvent | None = None,
    *,
    identify: Identify | None = None,
) -> StudyRecord:
    """Run a study until ``spec.requested`` trials are finished or it stops early, going on where an earlier run ended.

    With as many or more finished already, nothing is evaluated. What ``KeyboardInterrupt``,
    ``errors.Interrupted`` or any other exception interrupts is handed back before it propagates, and the same
    call resumes. A single worker that was stopped or killed any number of times evaluates the same points with
    the same seeds as one that never was.

    Args:
        spec: What to search.
        storage: Where the study lives.
        propose: Makes a candidate of a point.
        evaluate: Evaluates a candidate with a seed; see ``worker.Evaluate`` for what it may raise.
        on_event: Told what happens.
        identify: Says which candidates are one model, so that it is evaluated once; by default equal candidates are.

    Returns:
        The whole study, earlier runs' trials included.

    Raises:
        StudyError: The stored study is another one, the storage stays away, or no trial at all succeeds.
    """
    tell = on_event or _silent
    for notice in storage.notices:
        tell(Event("notice", 0, spec.requested, message=notice))
    ledger = start_study(spec, storage)
    Worker(ledger, spec, propose, identify or _by_candidate, evaluate, tell).run()
    return read_study(storage, spec.name)


def start_study(spec: StudySpec, storage: StudyStorage) -> Ledger:
    """Create the study, or verify that the stored one is the same; then enqueue its baselines.

    Raises:
        StudyError: The stored study is another one; the message lists every difference.
    """
    if spec.requested < 1:
        raise StudyError(f"a study needs at least 1 trial, got {spec.requested}")
    ledger = Ledger.create(storage, spec.name, directions(spec.context))
    stored = ledger.attributes()
    identity = _identity(spec)
    if IDENTITY in stored:
        _verify(stored[IDENTITY], identity, spec.name, storage.location)
    elif ledger.trials():
        raise StudyError(
            f"study {spec.name!r} in {storage.location} was not started by automl-prune; choose another name"
        )
    if CONTEXT not in stored:
        ledger.set_attribute(CONTEXT, spec.context.to_json())
    if IDENTITY not in stored:
        ledger.set_attribute(IDENTITY, identity)
    if spec.requested > stored.get(REQUESTED, 0):
        ledger.set_attribute(REQUESTED, spec.requested)
    if spec.patience != stored.get(PATIENCE):
        ledger.set_attribute(PATIENCE, spec.patience)
    _enqueue_baselines(spec, ledger)
    return ledger


def check_study(storage: StudyStorage, name: str, known: Mapping[str, Any]) -> None:
    """Verify a study of this name, if there is one, as far as entries of the identity are ``known`` yet.

    Raises:
        StudyError: It is another one; the message lists every difference.
    """
    stored = Ledger(storage, name).attributes().get(IDENTITY) if exists(storage, name) else None
    if stored is not None:
        now = json.loads(json.dumps(dict(known)))
        _verify({key: stored.get(key) for key in now}, now, name, storage.location)


def points_with(storage: StudyStorage, name: str, given: Sequence[Baseline]) -> int:
    """How many points a study without a strategy has that is to evaluate ``given`` besides what it holds, if it exists.

    Earlier runs may have given others.
    """
    stored = _names(Ledger(storage, name)) if exists(storage, name) else set()
    return len(stored | {baseline.name for baseline in given})


def _names(ledger: Ledger) -> set[str]:
    return {str(trial.user_attrs.get(SOURCE, trial.user_attrs.get(ORIGIN))) for trial in ledger.trials()}


def _enqueue_baselines(spec: StudySpec, ledger: Ledger) -> None:
    space, known = distributions(spec.parameters), _names(ledger)
    for baseline in affordable(spec.baselines, spec.requested) if spec.searches else spec.baselines:
        if baseline.name in known:
            continue
        try:
            attributes: dict[str, Any] = {ORIGIN: baseline.origin}
            if baseline.source:
                attributes[SOURCE] = baseline.source
            if baseline.candidate is not None:
                attributes[CANDIDATE] = baseline.candidate.to_json()
            create_trial(state=OptunaState.WAITING, params=dict(baseline.point), distributions=space)  # a point?
            ledger.add(template(OptunaState.WAITING, baseline.point, attributes))
        except ValueError as error:
            raise StudyError(
                f"baseline {baseline.origin!r} is no point of the space ({error}); give every parameter a value "
                "within its bounds"
            ) from error


def _identity(spec: StudySpec) -> dict[str, Any]:
    """What must not change between the runs of one study, as JSON would give it back."""
    context = spec.context
    space = {
        parameter.name: {key: value for key, value in asdict(parameter).items() if key != "name"}
        for parameter in spec.parameters
    }
    built_in = {
        "space": space,
        "strategy": spec.strategy,
        "seed": spec.seed,
        "metric": asdict(context.metric),
        "cost": context.cost,
        "limits": dict(context.limits),
    }
    return cast(dict[str, Any], json.loads(json.dumps({**built_in, **spec.identity})))


def _verify(stored: Mapping[str, Any], now: Mapping[str, Any], name: str, location: str) -> None:
    found = differences(stored, now)
    if found:
        raise StudyError(
            f"{location} holds another study {name!r}; what differs:\n  "
            + "\n  ".join(found)
            + "\nrestore these, or start a new study with another --run-dir"
        )


class StudyReader:
    """Reads a study again and again; what is finished is decoded once.

    Args:
        storage: Where it lives.
        name: Its name; None for the only study there is.

    Raises:
        StudyError: There is no such study, or it was not written by this package.
    """

    def __init__(self, storage: StudyStorage, name: str | None = None) -> None:
        self._ledger = Ledger(storage, name)
        self._context = decode_context(self._ledger.attributes(), self._ledger.name)
        self._known: dict[int, tuple[Chain, TrialRecord]] = {}

    def read(self) -> StudyRecord:
        """Everything the study holds up to where it stopped, as of now; nothing is written.

        A study that went on with another patience, and has its old one again, holds trials and finalists beyond.
        """
        attributes = self._ledger.attributes()
        requested = int(attributes.get(REQUESTED, 0))
        chains = self._ledger.chains()[:requested]
        stagnation = Stagnation(attributes.get(PATIENCE), self._context)
        stagnation.look(chains)
        stop = stagnation.stop
        return StudyRecord(
            self._context,
            tuple(self._record(chain) for chain in (chains[: stop.trials] if stop else chains)),
            tuple(f for f in decode_finalists(attributes) if stop is None or f.trial < stop.trials),
            requested,
            stop,
            decode_sweep(attributes),
            decode_failed_finalists(attributes),
        )

    def _record(self, chain: Chain) -> TrialRecord:
        known, record = self._known.get(chain.index, (None, None))
        if record is None or known is not chain:  # a chain that something was added to is another one
            state: TrialState = "waiting" if chain.state == "lost" else chain.state
            limits = self._context.limits
            record = trial_record(chain.index, chain.current, state, chain.attempt, chain.deaths, limits)
            self._known[chain.index] = chain, record
        return record


def read_study(storage: StudyStorage, name: str | None = None) -> StudyRecord:
    """Everything a study holds, as of now; nothing is written. See ``StudyReader``, which also says what it raises."""
    return StudyReader(storage, name).read()


def read_identity(storage: StudyStorage, name: str | None = None) -> Mapping[str, Any]:
    """What makes a study the one it is (model, data, budget, ...), as it was stored when the study began.

    Raises:
        StudyError: There is no such study, or it was not written by this package.
    """
    ledger = Ledger(storage, name)
    attributes = ledger.attributes()
    decode_context(attributes, ledger.name)
    identity: Mapping[str, Any] = attributes[IDENTITY]
    return identity


def write_finalist(storage: StudyStorage, finalist: Finalist, name: str | None = None) -> None:
    """Store a finalist with its study, replacing one of the same trial."""
    Ledger(storage, name).set_attribute(f"{FINALIST}{finalist.trial}", finalist.to_json())


def write_failed_finalist(storage: StudyStorage, failed: FailedFinalist, name: str | None = None) -> None:
    """Store with its study why a trial is no finalist."""
    Ledger(storage, name).set_attribute(f"{FAILED_FINALIST}{failed.trial}", failed.reason)


def write_sweep(storage: StudyStorage, sweep: RateSweep, name: str | None = None) -> None:
    """Store with its study how the finalists' learning rate was chosen."""
    Ledger(storage, name).set_attribute(SWEEP, sweep.to_json())


def _by_candidate(candidate: Candidate) -> str:
    return candidate.digest


def _silent(event: Event) -> None:
    """Nobody watches."""
