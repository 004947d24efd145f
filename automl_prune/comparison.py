"""Two studies side by side: their fronts at the same stage, against one reference and under the same budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from automl_prune.errors import StudyError
from automl_prune.front import FrontPoint, ParetoFront
from automl_prune.report.estimate import Estimate
from automl_prune.report.table import FrontRow, Stage, front, front_table
from automl_prune.report.words import plural
from automl_prune.study.record import StudyRecord
from automl_prune.tasks import Metric


@dataclass(frozen=True, slots=True)
class Study:
    """One of two studies.

    Attributes:
        label: How it is called, its run directory.
        record: What it holds.
        data: Digest of its data, splits and preprocessing.
    """

    label: str
    record: StudyRecord
    data: str


@dataclass(frozen=True, slots=True)
class Level:
    """The best models that cost at most ``limit``.

    Attributes:
        limit: Of the cost, in its unit.
        rows: Of both studies; None where it has no model as cheap.
        gain: How much better the second study's is, positive when better; None unless both have a model.
    """

    limit: float
    rows: tuple[FrontRow | None, FrontRow | None]
    gain: Estimate | None

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval of the difference leaves out zero, as if no other cost had been looked at."""
        return self.gain is not None and self.gain.differs()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two studies found.

    Attributes:
        studies: Both.
        stage: ``finalists``, on test data, or ``search``, on validation data.
        metric: What models are scored by.
        cost: The fronts' other axis, that of the first study.
        dense: The cost of both dense models.
        volumes: Hypervolume of both fronts as a fraction of the rectangle between the reference and (no cost, the
            best dense score).
        reference: (score, cost): the worst score on either front, the dearer dense model's cost.
        levels: At the cost of every model of both fronts, ascending.
    """

    studies: tuple[Study, Study]
    stage: Stage
    metric: Metric
    cost: str
    dense: tuple[float, float]
    volumes: tuple[float, float] | None
    reference: tuple[float, float]
    levels: tuple[Level, ...]

    @property
    def verdict(self) -> str:
        """The result in one sentence; as all costs are looked at, each has to be surer (``Estimate.differs``)."""
        compared = [level for level in self.levels if level.gain]
        if not compared:
            return "Nothing compares: at no cost do both studies have a model."
        pairs = {tuple(row.trial for row in level.rows if row) for level in compared}
        sure = [level.gain.value for level in compared if level.gain and level.gain.differs(len(pairs))]
        first, second = (sum(sign * gain > 0 for gain in sure) for sign in (-1, 1))
        at = f"of {plural(len(compared), 'cost')} at which both have a model"
        if not first and not second:
            return f"No significant difference at any {at}."
        label = [study.label for study in self.studies]
        parts = [f"{label[0]} is significantly better at {first}"] if first else []
        parts += [f"{label[1]} is significantly better at {second}"] if second else []
        return f"{' and '.join(parts)} {at}."

    def to_json(self) -> dict[str, Any]:
        """Plain values, costs in their units."""
        return {
            "studies": [study.label for study in self.studies],
            "stage": self.stage,
            "metric": self.metric.name,
            "split": "test" if self.stage == "finalists" else "val",
            "cost": self.cost,
            "dense": list(self.dense),
            "reference": {"score": self.reference[0], "cost": self.reference[1]},
            "hypervolume": list(self.volumes) if self.volumes else None,
            "levels": [_level_to_json(level) for level in self.levels],
            "verdict": self.verdict,
        }


def compare(first: Study, second: Study) -> Comparison:
    """Compare two studies at the last stage that both have reached.

    Models are chosen by their validation score, and finalists are compared on test data.

    Raises:
        StudyError: They cannot be compared; the message says why.
    """
    records = (first.record, second.record)
    _check(first, second)
    contexts = [record.context for record in records]
    metric, cost = contexts[0].metric, contexts[0].cost
    stage: Stage = "finalists" if all(front(record, "finalists").points for record in records) else "search"
    fronts = [front(record, stage) for record in records]
    rungs = {found.rung for found in fronts if found.points}
    if len(rungs) > 1:
        raise StudyError(
            f"{first.label} and {second.label} have fronts of different rungs ({fronts[0].rung} and {fronts[1].rung}), "
            "whose scores do not compare; let both searches finish"
        )
    points = [point for found in fronts for point in found.points]
    if not points:
        raise StudyError(f"neither {first.label} nor {second.label} has a model within its budget yet; resume them")
    dense = (contexts[0].dense_costs[cost], contexts[1].dense_costs[cost])
    scores = [point.score for point in points]
    reference = (min(scores) if metric.higher_is_better else max(scores), max(dense))
    best = (max if metric.higher_is_better else min)(context.dense_val.value for context in contexts)
    rows = tuple(front_table(record, stage) for record in records)
    return Comparison(
        (first, second),
        stage,
        metric,
        cost,
        dense,
        _volumes(fronts, reference, best, higher_is_better=metric.higher_is_better),
        reference,
        tuple(_level(limit, rows, cost, metric) for limit in sorted({point.cost for point in points})),
    )


def _check(first: Study, second: Study) -> None:
    a, b = first.record.context, second.record.context
    problems = []
    if a.metric != b.metric:
        problems.append(f"one is scored by {a.metric.name}, the other by {b.metric.name}")
    if first.data != second.data:
        problems.append(f"data, splits or preprocessing differ (digests {first.data[:12]} and {second.data[:12]})")
    if a.cost != b.cost:
        problems.append(f"the first budget of one is {a.cost}, that of the other {b.cost}")
    if problems:
        raise StudyError(
            f"{first.label} and {second.label} cannot be compared: {'; '.join(problems)}; "
            "compare studies of the same data, metric and cost"
        )


def _volumes(
    fronts: Sequence[ParetoFront], reference: tuple[float, float], best: float, *, higher_is_better: bool
) -> tuple[float, float] | None:
    """Both hypervolumes as fractions; None where no front scores worse than the dense model, so there is no scale."""
    ideal = ParetoFront((FrontPoint(-1, best, 0.0, True, 0),), higher_is_better).hypervolume(reference)
    if ideal <= 0:
        return None
    first, second = (found.hypervolume(reference) / ideal for found in fronts)
    return first, second


def _level(limit: float, rows: Sequence[Sequence[FrontRow]], cost: str, metric: Metric) -> Level:
    found = []
    for mine in rows:
        cheap = [row for row in mine if row.costs[cost].value <= limit]
        found.append(cheap[-1] if cheap else None)  # of a front, the dearest is the best
    first, second = found
    gain = None
    if first is not None and second is not None:
        ours, theirs = score_of(second), score_of(first)
        gain = ours.minus(theirs) if metric.higher_is_better else theirs.minus(ours)
    return Level(limit, (first, second), gain)


def score_of(row: FrontRow) -> Estimate:
    """On test data where it was measured, else on validation data."""
    return row.test if row.test is not None else row.val


def _level_to_json(level: Level) -> dict[str, Any]:
    gain = level.gain
    return {
        "limit": level.limit,
        "models": [None if row is None else _row_to_json(row) for row in level.rows],
        "gain": None if gain is None else gain.value,
        "interval": None if gain is None or gain.interval is None else list(gain.interval),
        "significant": level.significant,
    }


def _row_to_json(row: FrontRow) -> Mapping[str, Any]:
    score = score_of(row)
    return {
        "trial": row.trial,
        "origin": row.origin,
        "costs": {name: cost.value for name, cost in row.costs.items()},
        "score": score.value,
        "standard_error": score.standard_error,
    }
