"""Which parameters of the search space mattered: PED-ANOVA over the completed trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from automl_prune.study.record import Point, StudyRecord
from automl_prune.study.storage import quiet

FEWEST = 20
"""Completed trials below which an importance would be noise."""

MOST = 1000
"""Trials that are looked at; of more, as many evenly spaced ones, so that it takes a second whatever the study."""


@dataclass(frozen=True, slots=True)
class Importance:
    """Importance of every parameter that varied, each kind summing to 1.

    Attributes:
        score: For reaching the best tenth of the scores (at least five trials).
        front: For reaching the best fronts of score and cost together.
        trials: How many trials were looked at.
    """

    score: Mapping[str, float]
    front: Mapping[str, float]
    trials: int


def importance(record: StudyRecord) -> Importance | None:
    """The importance of a study's parameters; None with fewer than ``FEWEST`` completed trials, or when none varied.

    Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces"
    (arXiv:2304.10255), as Optuna computes it. Scores are those of rung 0, which alone all trials have. A parameter's
    range is that of its values.
    """
    context = record.context
    done = [(t.point, e) for t in record.trials if (e := t.evaluation) and t.point]
    if len(done) < FEWEST:
        return None
    done = [done[index * len(done) // min(MOST, len(done))] for index in range(min(MOST, len(done)))]
    space = _space([point for point, _ in done])
    if not space:
        return None
    sign = -1 if context.metric.higher_is_better else 1
    with quiet():
        study = optuna.create_study(directions=["minimize", "minimize"])
    study.add_trials(
        [
            create_trial(
                params={name: point[name] for name in space},
                distributions=space,
                values=[sign * evaluation.rungs[0].score.value, evaluation.costs[context.cost].value],
            )
            for point, evaluation in done
        ]
    )
    evaluator = PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / len(done)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that lower targets are taken for better, as these are
        score = get_param_importances(study, evaluator=evaluator, target=lambda trial: trial.values[0])
        front = get_param_importances(study, evaluator=evaluator)
    return Importance(_plain(score), _plain(front), len(done))


def _space(points: Sequence[Point]) -> dict[str, BaseDistribution]:
    """Distributions of the parameters that all points have and that are not the same everywhere."""
    names = [name for name in points[0] if all(name in point for point in points)]
    space: dict[str, BaseDistribution] = {}
    for name in names:
        values = [point[name] for point in points]
        if len(set(values)) < 2:
            continue
        numbers = [value for value in values if isinstance(value, (int, float))]
        if len(numbers) == len(values):
            space[name] = FloatDistribution(min(numbers), max(numbers))
        else:
            space[name] = CategoricalDistribution(sorted({str(value) for value in values}))
    return space


def _plain(found: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items()}
