"""What a study is asked to do, and what it says while it does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from automl_prune.candidate import Candidate
from automl_prune.errors import AutomlPruneError, EvaluationError
from automl_prune.evaluation.evaluator import Climb
from automl_prune.evaluation.record import Evaluation
from automl_prune.space import Parameter
from automl_prune.study.baselines import Baseline
from automl_prune.study.promotion import Promotion
from automl_prune.study.record import Point, StudyContext

Propose: TypeAlias = Callable[[Point], Candidate]
"""The candidate a point of the space stands for."""

Identify: TypeAlias = Callable[[Candidate], str]
"""What candidates that are one and the same model have in common: the ``plan_digest`` of their evaluation."""

Evaluate: TypeAlias = Callable[[Candidate, int, Climb], Evaluation]
"""(candidate, seed, whether it climbs to rung 1) -> its evaluation; what it raises is taken as ``failure`` says."""


def failure(error: Exception) -> str:
    """Why a trial or a job fails, of what its evaluation raised.

    ``EvaluationError``, or any exception that is not one of this package's nor an ``OSError``, fails this one alone:
    out of memory, a singular matrix. The others concern more than one: they are raised again, and stop the worker.
    """
    if isinstance(error, EvaluationError):
        return str(error)
    if isinstance(error, (AutomlPruneError, OSError)):
        raise error
    return f"{type(error).__name__}: {error}"


@dataclass(frozen=True, slots=True)
class StudySpec:
    """What to search, and how.

    Attributes:
        name: The study's name in its storage.
        context: Stored when the study starts.
        identity: JSON-ready values by key that must be equal whenever the study is resumed (digests of model and
            data, say). Space, strategy, seed, metric, cost and limits are added to them.
        parameters: The search space.
        strategy: Registered name.
        seed: Of everything random.
        requested: How many trials are to be finished in all, this run's and earlier ones.
        baselines: Evaluated first, as many as leave half of the trials to the search.
        searches: Whether a strategy proposes points; without one all baselines are evaluated, and they alone.
        worker: Number of this worker among those of the study; it varies what the strategy proposes, so that
            two workers that ask at one moment get different points.
        device: What this worker computes on, for those who ask.
        lease: Seconds without a sign of life after which a worker on another machine counts as gone.
        attempts: How often a point is tried in all when it takes its worker with it; then it is set aside, failed.
        patience: Finished trials of the search without growth of the front after which it stops early; None never
            does (``stopping``).
        promotion: Which candidates climb to rung 1; None when there is only rung 0.
        network: What is known of the layers behind a parameter, by its name, each number in [0, 1] and the first
            the share of the dense model's cost; for strategies that learn from it.
    """

    name: str
    context: StudyContext
    identity: Mapping[str, Any]
    parameters: tuple[Parameter, ...]
    strategy: str
    seed: int
    requested: int
    baselines: tuple[Baseline, ...] = ()
    searches: bool = True
    worker: int = 0
    device: str = ""
    lease: float = 60.0
    attempts: int = 3
    patience: int | None = None
    promotion: Promotion | None = None
    network: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


EventKind = Literal["started", "complete", "reused", "failed", "lost", "handed_back", "ignored", "notice"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for progress displays and logs.

    Attributes:
        kind: ``lost`` is a trial whose worker is gone (it is tried again), ``ignored`` a result that came after
            its trial was taken for lost, ``notice`` a message about the study as a whole.
        finished: Trials finished so far, by all workers.
        requested: Trials to be finished in all.
        trial: Number of the trial, None for a notice.
        message: For people; empty where the kind says it all.
        evaluation: With ``complete`` and ``reused``.
    """

    kind: EventKind
    finished: int
    requested: int
    trial: int | None = None
    message: str = ""
    evaluation: Evaluation | None = None


OnEvent: TypeAlias = Callable[[Event], None]
