"""CMA-ES for one objective: the best score at the whole budget."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from automl_prune.errors import ConfigError
from automl_prune.study.strategies.base import strategies
from automl_prune.study.strategies.history import (
    TARGET,
    Cube,
    Replayed,
    choices,
    complete_trials,
    is_searched,
    ranking,
    whole_budget,
)

SIGMA = 0.2
"""First standard deviation, in units of every parameter's range."""


@strategies.register("cmaes")
def cmaes(seed: int) -> BaseSampler:
    """Evolution of a normal distribution (Hansen 2016, arXiv:1604.00772; separable: Ros & Hansen 2008, section 3).

    It has one objective, so it looks for the best score at the whole budget: ``target_cost`` stays at 1, and the
    front below the budget is what baselines and strategies of two objectives make of it. Names (criteria) are
    mostly those of the best trial so far (``history.choices``). The covariance is diagonal: in tens of parameters a
    full one takes more trials to learn than a search has.

    Raises:
        ConfigError: The package ``cmaes`` is not installed.
    """
    try:
        import cmaes as package
    except ImportError as error:
        raise ConfigError(
            "strategy 'cmaes' needs the package cmaes, which is not installed; run: "
            "pip install 'automl-prune[strategies]', or choose another strategy"
        ) from error
    return _CMA(package.SepCMA, seed)


class _CMA(Replayed):
    """Replays the searched trials, generation by generation, and draws one point from what comes of it.

    The distribution starts around the best baseline. It is a function of the trials; only the draw takes the seed.
    """

    def __init__(self, optimiser: Any, seed: int) -> None:
        super().__init__(seed)
        self._optimiser = optimiser

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        cube = Cube.of(search_space, TARGET)
        drawn = cube.decode(self._draw(study, cube)) if cube.ranges else {}
        return {**whole_budget(search_space), **choices(study, search_space, self.seed), **drawn}

    def _draw(self, study: Study, cube: Cube) -> NDArray[np.float64]:
        trials = complete_trials(study)
        known = ranking(study, [trial for trial in trials if not is_searched(trial)])
        size = max(2, len(cube.ranges))  # it has no one-dimensional form: a second dimension that nothing reads
        start = np.full(size, 0.5)
        if known:
            start[: len(cube.ranges)] = cube.encode(known[0].params)
        bounds = np.tile([0.0, 1.0], (size, 1))
        optimiser = self._optimiser(mean=start, sigma=SIGMA, bounds=bounds, seed=self.seed)
        searched = [trial for trial in trials if is_searched(trial)]
        generation = optimiser.population_size
        for first in range(0, len(searched) - generation + 1, generation):
            best_first = ranking(study, searched[first : first + generation])
            points = [np.resize(cube.encode(trial.params), size) for trial in best_first]
            optimiser.tell([(point, float(rank)) for rank, point in enumerate(points)])
        return np.asarray(optimiser.ask())[: len(cube.ranges)]
