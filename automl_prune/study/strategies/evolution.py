"""Genetic strategies: children of the best trials so far, by simulated binary crossover and polynomial mutation."""

from __future__ import annotations

import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseGASampler, BaseSampler, NSGAIIISampler, NSGAIISampler
from optuna.samplers.nsgaii import PolynomialMutation, SBXCrossover
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from automl_prune.study.strategies.base import strategies

POPULATION = 20
"""Parents. Small, because a search here has some hundred trials, not the ten thousand that 50 to 100 are meant for."""


class _Steady(BaseGASampler):
    """Parents are the best of *all* trials, chosen anew for every child.

    The steady-state form (Durillo et al. 2009, "On the effect of the steady-state selection scheme in
    multi-objective genetic algorithms", section 3) learns from a result at once. It needs no generations to be
    noted, so what it proposes follows from the trials alone, whichever process ran them.
    """

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        return int(len(self.get_population(study, 0)) >= POPULATION)

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        return self.select_parent(study, generation) if generation else []


class _SteadyNSGAII(_Steady, NSGAIISampler):
    pass


class _SteadyNSGAIII(_Steady, NSGAIIISampler):
    pass


@strategies.register("nsga2")
def nsga2(seed: int) -> BaseSampler:
    """Non-dominated sorting, then crowding distance (Deb et al. 2002, doi:10.1109/4235.996017, section III)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _SteadyNSGAII(
            population_size=POPULATION, crossover=SBXCrossover(), mutation=PolynomialMutation(), seed=seed
        )


@strategies.register("nsga3")
def nsga3(seed: int) -> BaseSampler:
    """Non-dominated sorting, then reference directions (Deb & Jain 2014, doi:10.1109/TEVC.2013.2281535, section IV)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return _SteadyNSGAIII(
            population_size=POPULATION,
            crossover=SBXCrossover(),
            mutation=PolynomialMutation(),
            seed=seed,
            dividing_parameter=POPULATION - 1,  # with two objectives a direction for every parent
        )
