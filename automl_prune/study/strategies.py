"""Strategies: what proposes the next point. Each is a function of a seed that gives an Optuna sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.registry import Registry
from automl_prune.study.chains import Chain
from automl_prune.study.codec import template
from automl_prune.study.storage import quiet

Strategy: TypeAlias = Callable[[int], BaseSampler]
"""(seed) -> a new sampler. It is made anew for every proposal: what it knows is what the study holds."""

strategies: Registry[Strategy] = Registry("strategies")


@strategies.register("tpe")
def _tpe(seed: int) -> BaseSampler:
    # multivariate: univariate TPE, Optuna's default with two objectives, was worse than random in 40 dimensions.
    # n_startup_trials: baselines count, so that with some ten of them hardly a trial is spent on chance alone.
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=10)


@strategies.register("random")
def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


class _KnownSpace(BaseSampler):
    """A sampler that is told the search space, which Optuna would find by comparing all trials' distributions.

    That comparison was a third of the time of a proposal at 300 trials of 40 parameters.
    """

    def __init__(self, sampler: BaseSampler, space: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        self._space = {name: space[name] for name in sorted(space) if not space[name].single()}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)


class Proposer:
    """Asks a strategy for points, on a copy of the study in memory.

    The copy is why a trial costs one write with all its parameters instead of one for each, why a point exists in
    the storage only together with its owner, and why a resumed study proposes what the uninterrupted one would:
    the sampler sees finished trials in the study's order, and lost attempts not at all.

    Args:
        strategy: Registered name; an unknown one raises ``ConfigError``.
        space: Distributions by parameter name.
        directions: Of the objectives.
    """

    def __init__(
        self, strategy: str, space: Mapping[str, BaseDistribution], directions: Sequence[StudyDirection]
    ) -> None:
        self._strategy = strategies[strategy]
        self._space = dict(space)
        with quiet():
            self._copy = optuna.create_study(directions=list(directions), sampler=RandomSampler())
        self._copied: set[int] = set()
        self._size = 0

    def propose(self, chains: Sequence[Chain], seed: int) -> dict[str, Any]:
        """Values for every parameter.

        Args:
            chains: The study as it is now.
            seed: Of everything random in the proposal.
        """
        for chain in chains:
            if chain.state == "complete" and chain.index not in self._copied:
                self._copied.add(chain.index)
                self._add(chain, OptunaState.COMPLETE)
        # Points that others are working on, so that the strategy keeps away from them. They are failed below,
        # which makes samplers pass them over, and copied for good when they are complete.
        passing = [self._add(chain, OptunaState.RUNNING) for chain in chains if chain.state == "running"]
        self._copy.sampler = _KnownSpace(self._strategy(seed), self._space)
        trial = self._copy.ask(self._space)
        self._size += 1
        for number in (*passing, trial.number):
            self._copy.tell(number, state=OptunaState.FAIL)
        return trial.params

    def _add(self, chain: Chain, state: OptunaState) -> int:
        trial = chain.current
        values, constraints = (trial.values, trial.constraints) if state == OptunaState.COMPLETE else (None, None)
        self._copy.add_trial(
            template(state, trial.params, trial.distributions, {}, values=values, constraints=constraints)
        )
        self._size += 1
        return self._size - 1
