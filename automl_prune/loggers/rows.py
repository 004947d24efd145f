"""From a search's events to rows of numbers."""

from __future__ import annotations

from collections.abc import Iterable

from automl_prune.front import FrontPoint, GrowingFront, reference_point
from automl_prune.loggers.base import Row
from automl_prune.view import FinalistTrained, SearchEnded, SearchStarted, TrialEnded


class TrialRows:
    """Rows of trials, in order of number whatever the order they end in, with the front's growth.

    Args:
        study: Whose trials they are.
    """

    def __init__(self, study: SearchStarted) -> None:
        dense, cost = study.dense_val, study.dense_costs[study.cost]
        reference = reference_point(dense, cost, higher_is_better=study.higher_is_better)
        self._study, self._area = study, abs(dense - reference[0]) * cost
        self._front = GrowingFront(reference, higher_is_better=study.higher_is_better)
        self._early: dict[int, TrialEnded] = {}
        self._next = 0

    def add(self, trials: Iterable[TrialEnded]) -> list[Row]:
        """The rows that are due: a trial's waits until all with lower numbers have ended."""
        self._early |= {trial.trial: trial for trial in trials}
        due = []
        while self._next in self._early:
            due.append(self._row(self._early.pop(self._next)))
            self._next += 1
        return due

    def _row(self, trial: TrialEnded) -> Row:
        study, origin = self._study, "" if trial.origin == "search" else trial.origin
        values: dict[str, float] = {"trial/complete": float(trial.score is not None), "trial/baseline": bool(origin)}
        if trial.score is not None and trial.costs is not None and trial.untrained is not None:
            excess = (trial.costs[name] / limit - 1 for name, limit in study.limits.items())
            point = FrontPoint(trial.trial, trial.untrained, trial.costs[study.cost], bool(trial.feasible), 0)
            values |= {
                f"trial/{study.metric}": trial.score,
                f"trial/{study.metric}_rung0": trial.untrained,
                "trial/rung": float(trial.rung or 0),
                "trial/violation": max(0.0, *excess),
                **{f"trial/{name}": value for name, value in trial.costs.items()},
            }
            if self._area > 0:
                values["front/hypervolume"] = self._front.add(point) / self._area
        return Row(trial.trial, values, origin)


def dense_row(study: SearchStarted) -> Row:
    """The dense model's scores and costs."""
    scores = {f"dense/{study.metric}_val": study.dense_val, f"dense/{study.metric}_test": study.dense_test}
    return Row(0, scores | {f"dense/{name}": value for name, value in study.dense_costs.items()})


def finalist_row(finalist: FinalistTrained, metric: str) -> Row:
    """A finalist's mean scores with the ends of their intervals."""
    values = {"finalist/seeds": float(finalist.seeds)}
    for split, value, interval in (
        ("val", finalist.val, finalist.val_interval),
        ("test", finalist.test, finalist.test_interval),
    ):
        values[f"finalist/{metric}_{split}"] = value
        if interval is not None:
            low, high = interval
            values |= {f"finalist/{metric}_{split}_low": low, f"finalist/{metric}_{split}_high": high}
    return Row(finalist.trial, values, "" if finalist.origin == "search" else finalist.origin)


def best_row(result: SearchEnded, requested: int) -> Row:
    """The front's model with the best score: the columns of front.json that are numbers."""
    columns = result.front[-1] if result.front else {}
    return Row(requested, {f"best/{name}": float(value) for name, value in columns.items() if _is_number(value)})


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
