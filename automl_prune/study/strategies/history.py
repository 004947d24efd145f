"""What strategies of our own look at: the complete trials of a study as points of a cube and one merit each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from automl_prune.seeding import derive_seed
from automl_prune.study.codec import ORIGIN, SEARCH

TARGET = "target_cost"
"""The parameter that says which share of the budget a candidate spends."""

EXPLORE = 0.1
"""How often a name is drawn at random."""


def complete_trials(study: Study) -> list[FrozenTrial]:
    """Every complete trial, in order; not to be changed."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def is_searched(trial: FrozenTrial) -> bool:
    """Whether a strategy proposed the trial; else it is a baseline."""
    return bool(trial.user_attrs.get(ORIGIN, SEARCH) == SEARCH)


def merit(study: Study, trial: FrozenTrial) -> float:
    """The first objective, turned so that higher is better."""
    sign = 1.0 if study.directions[0] == StudyDirection.MAXIMIZE else -1.0
    return sign * float(trial.values[0])


def excess(trial: FrozenTrial) -> float:
    """By how much the trial is over its budgets, summed; 0 when it keeps them."""
    return float(sum(max(0.0, value) for value in (trial.constraints or {}).values()))


def ranking(study: Study, trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Best first: those within budget by merit, then those over it by how little; of equals the earlier."""
    return sorted(trials, key=lambda trial: (excess(trial), -merit(study, trial) if not excess(trial) else 0.0))


@dataclass(frozen=True, slots=True)
class Cube:
    """Some real parameters scaled to [0, 1].

    Attributes:
        ranges: By name, in order.
    """

    ranges: Mapping[str, FloatDistribution]

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution], *without: str) -> Cube:
        """The real parameters of a space, some left out."""
        return cls({n: d for n, d in space.items() if isinstance(d, FloatDistribution) and n not in without})

    def encode(self, params: Mapping[str, Any]) -> NDArray[np.float64]:
        """A point, shape (parameters,)."""
        return np.array([(params[name] - d.low) / (d.high - d.low) for name, d in self.ranges.items()], dtype=float)

    def decode(self, point: NDArray[np.float64]) -> dict[str, float]:
        """The parameters of a point; what lies outside is moved to the nearest side."""
        return {
            name: float(d.low + min(1.0, max(0.0, float(x))) * (d.high - d.low))
            for (name, d), x in zip(self.ranges.items(), point, strict=True)
        }


def whole_budget(space: Mapping[str, BaseDistribution]) -> dict[str, float]:
    """The target cost that spends the whole budget, where the space has one: for strategies of one objective."""
    target = space.get(TARGET)
    return {TARGET: target.high} if isinstance(target, FloatDistribution) else {}


def choices(study: Study, space: Mapping[str, BaseDistribution], seed: int) -> dict[str, Any]:
    """Values of the parameters without an order, for strategies that move along real numbers.

    One that no complete trial has, while there is any; then mostly that of the best trial, and once in ten any.
    """
    trials = ranking(study, complete_trials(study))
    rng = np.random.default_rng(derive_seed("choices", seed))
    found = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            tried = {trial.params[name] for trial in trials}
            fresh = [choice for choice in distribution.choices if choice not in tried]
            explore = rng.random() < EXPLORE
            among = fresh or (distribution.choices if explore else [trials[0].params[name]])
            found[name] = among[int(rng.integers(len(among)))]
    return found


class Replayed(BaseSampler):
    """A sampler that holds nothing: what it proposes is worked out from the study's trials and the seed.

    Args:
        seed: Of the proposal.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._chance = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What all trials have in common."""
        return intersection_search_space(study.get_trials(deepcopy=False))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random: what the strategy itself left open."""
        return self._chance.sample_independent(study, trial, param_name, param_distribution)
