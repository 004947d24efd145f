"""Between this package's values and what Optuna stores: objective values, user attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from automl_prune.costs import Cost
from automl_prune.errors import EvaluationError, StudyError
from automl_prune.evaluation.record import Evaluation
from automl_prune.study.record import (
    Attempt,
    FailedFinalist,
    Finalist,
    Point,
    RateSweep,
    StudyContext,
    TrialRecord,
    TrialState,
)

# User attributes of a trial.
OWNER: Final = "owner"
BEAT: Final = "beat"
ORIGIN: Final = "origin"
CANDIDATE: Final = "candidate"
SOURCE: Final = "source"
ROOT: Final = "root"
RETRY_OF: Final = "retry_of"
REASON: Final = "reason"
POISON: Final = "poison"
DROPPED: Final = "dropped"
HANDED_BACK: Final = "handed_back"
POINT: Final = "point"
RESULT: Final = "result"

# User attributes of a study.
IDENTITY: Final = "identity"
CONTEXT: Final = "context"
REQUESTED: Final = "requested"
PATIENCE: Final = "patience"
FINALIST: Final = "finalist:"
FAILED_FINALIST: Final = "failed_finalist:"
SWEEP: Final = "learning_rate"
INVITATION: Final = "invitation"
OFFERED: Final = "offered"

SEARCH: Final = "search"
"""Origin of the trials that a strategy proposed."""


def directions(context: StudyContext) -> tuple[StudyDirection, StudyDirection]:
    """The two objectives: the score in its metric's direction, the front's cost downwards."""
    best = StudyDirection.MAXIMIZE if context.metric.higher_is_better else StudyDirection.MINIMIZE
    return best, StudyDirection.MINIMIZE


def objectives(evaluation: Evaluation, context: StudyContext) -> tuple[float, float]:
    """Score at rung 0 and cost of an evaluation, as told to Optuna.

    Every trial has a rung 0, so these scores can all be compared. Those of rung 1 cannot: a strategy that saw them
    in place of rung 0's would take for better what was only trained, and would crowd around what climbed first.

    Raises:
        EvaluationError: A score is no finite number.
        StudyError: The front's cost was not evaluated.
    """
    for rung in evaluation.rungs:
        value = rung.score.value
        if not math.isfinite(value):
            raise EvaluationError(
                f"the {context.metric.name} of the candidate at rung {rung.rung} is {value}, not a finite number"
            )
    return evaluation.rungs[0].score.value, _cost(evaluation.costs, context.cost)


def violations(costs: Mapping[str, Cost], limits: Mapping[str, float]) -> dict[str, float]:
    """By how much each budgeted cost exceeds its limit, relative to the limit; at most 0 where it holds."""
    return {metric: _cost(costs, metric) / limit - 1 for metric, limit in limits.items()}


def within(costs: Mapping[str, Cost], limits: Mapping[str, float]) -> bool:
    """Whether every budget holds."""
    return all(excess <= 0 for excess in violations(costs, limits).values())


def _cost(costs: Mapping[str, Cost], metric: str) -> float:
    if metric not in costs:
        raise StudyError(
            f"budgeted cost {metric!r} was not evaluated, only {sorted(costs)}; "
            "the evaluator must return every cost that the budget bounds"
        )
    return costs[metric].value


def encode_result(evaluation: Evaluation, context: StudyContext, reused_from: int | None) -> dict[str, Any]:
    """What a trial found out, as one JSON value; ``reused_from`` is the point that was evaluated in its place."""
    return {
        "evaluation": evaluation.to_json(),
        "violations": violations(evaluation.costs, context.limits),
        "reused_from": reused_from,
    }


def violations_of(trial: FrozenTrial) -> Mapping[str, float]:
    """By how much a complete trial exceeds each limit, as it was stored with it; see ``violations``."""
    found: Mapping[str, float] = _result(trial, "violations")
    return found


def reused_from(trial: FrozenTrial) -> int | None:
    """The point whose evaluation a complete trial took over; None when it was evaluated itself."""
    found: int | None = _result(trial, "reused_from")
    return found


def evaluation_of(trial: FrozenTrial) -> Evaluation:
    """The evaluation stored with a complete trial; a damaged one raises ``StudyError``."""
    try:
        return Evaluation.from_json(_result(trial, "evaluation"))
    except ValueError as error:
        raise _not_ours(trial, error) from error


def _result(trial: FrozenTrial, key: str) -> Any:
    try:
        return trial.user_attrs[RESULT][key]
    except (KeyError, TypeError) as error:
        raise _not_ours(trial, error) from error


def _not_ours(trial: FrozenTrial, error: Exception) -> StudyError:
    return StudyError(
        f"trial {trial.number} of the study holds no valid evaluation ({error}); it was written by another "
        "version of this package: start over with another --run-dir"
    )


def trial_record(
    index: int,
    trial: FrozenTrial,
    state: TrialState,
    attempt: int,
    deaths: Sequence[FrozenTrial],
    limits: Mapping[str, float],
) -> TrialRecord:
    """What the study knows of one point.

    Args:
        index: Its place in the study.
        trial: The attempt that decides its state.
        state: Its state.
        attempt: Which attempt it is, from 1.
        deaths: Attempts that were lost with their worker.
        limits: Absolute upper bound of every budgeted cost.
    """
    evaluation = evaluation_of(trial) if state == "complete" else None
    attributes = trial.user_attrs
    return TrialRecord(
        number=index,
        state=state,
        origin=attributes.get(ORIGIN, SEARCH),
        point=attributes.get(POINT, {}),
        evaluation=evaluation,
        reason=attributes.get(REASON) if state == "failed" else None,
        feasible=within(evaluation.costs, limits) if evaluation else None,
        started=_aware(trial.datetime_start) if state != "waiting" else None,
        finished=_aware(trial.datetime_complete) if state in ("complete", "failed") else None,
        attempt=attempt,
        reused_from=reused_from(trial) if state == "complete" else None,
        worker=_worker(trial) if state != "waiting" else None,
        lost=tuple(Attempt(_worker(t), _aware(t.datetime_start), _aware(t.datetime_complete)) for t in deaths),
        source=attributes.get(SOURCE),
    )


def _worker(trial: FrozenTrial) -> str | None:
    owner = trial.user_attrs.get(OWNER)
    return f"{owner['host']}:{owner['pid']}" if isinstance(owner, Mapping) and {"host", "pid"} <= owner.keys() else None


def _aware(moment: datetime | None) -> datetime | None:
    return moment.astimezone() if moment else None  # Optuna's times are local and naive


def decode_context(attributes: Mapping[str, Any], name: str) -> StudyContext:
    """The context among a study's user attributes; without a valid one it is not a study of this package."""
    try:
        return StudyContext.from_json(attributes[CONTEXT])
    except (KeyError, ValueError) as error:
        raise StudyError(
            f"study {name!r} was not started by this version of automl-prune ({error}); "
            "choose another --run-dir or study name"
        ) from error


def decode_finalists(attributes: Mapping[str, Any]) -> tuple[Finalist, ...]:
    """The finalists among a study's user attributes, in order of their trial; damaged ones raise ``StudyError``."""
    try:
        found = [Finalist.from_json(value) for key, value in attributes.items() if key.startswith(FINALIST)]
    except ValueError as error:
        raise StudyError(
            f"the study holds a damaged record ({error}); delete it and run the finalists again"
        ) from error
    return tuple(sorted(found, key=lambda finalist: finalist.trial))


def decode_failed_finalists(attributes: Mapping[str, Any]) -> tuple[FailedFinalist, ...]:
    """Those that could not be fine-tuned, in order of their trial; one that could later is none."""
    found = {
        int(key.removeprefix(FAILED_FINALIST)): str(reason)
        for key, reason in attributes.items()
        if key.startswith(FAILED_FINALIST)
    }
    trained = {finalist.trial for finalist in decode_finalists(attributes)}
    return tuple(FailedFinalist(trial, found[trial]) for trial in sorted(found.keys() - trained))


def decode_sweep(attributes: Mapping[str, Any]) -> RateSweep | None:
    """How the finalists' learning rate was chosen, if it was; a damaged record raises ``StudyError``."""
    try:
        return RateSweep.from_json(attributes[SWEEP]) if SWEEP in attributes else None
    except ValueError as error:
        raise StudyError(f"the study holds a damaged record ({error}); start over with another --run-dir") from error


def differences(stored: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for every value that differs between two JSON-ready mappings, nested keys joined by dots."""
    a, b = _flat(stored), _flat(now)
    absent = object()
    return [
        f"{key}: stored {_show(a, key)}, now {_show(b, key)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, absent) != b.get(key, absent)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        return {
            k: v
            for name, inner in value.items()
            for k, v in _flat(inner, f"{prefix}.{name}" if prefix else name).items()
        }
    return {prefix: value}


def _show(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else "absent"


def template(
    state: OptunaState, point: Point, attributes: Mapping[str, Any], *, values: Sequence[float] | None = None
) -> FrozenTrial:
    """A whole trial to be stored by one write.

    Its point is one user attribute: as parameters of Optuna's it would take several statements of a database for
    each, and strategies work on a copy (``strategies.Proposer``) that has them.
    """
    return create_trial(state=state, user_attrs={POINT: dict(point), **attributes}, values=values)
