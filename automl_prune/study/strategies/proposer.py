"""Asking a strategy for a point, whatever process asks and whatever was lost before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from automl_prune.study.chains import Chain
from automl_prune.study.codec import CANDIDATE, ORIGIN, SEARCH, violations_of
from automl_prune.study.distributions import Distributions, with_parameters
from automl_prune.study.storage import quiet
from automl_prune.study.strategies.base import COST, NETWORK, strategies


class _KnownSpace(BaseSampler):
    """A sampler that is told the search space, which Optuna would find by comparing all trials' distributions.

    That comparison was a third of the time of a proposal at 300 trials of 40 parameters.
    """

    def __init__(self, sampler: BaseSampler, space: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        self._space = {name: d for name, d in space.items() if not d.single()}

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

    A budget is a constraint from the first trial on that breaks it. Where all candidates are feasible by construction,
    none does, and a model of how near they are to it would only keep a sampler away from the edge of the budget, where
    the best candidates are.

    Args:
        strategy: Registered name; an unknown one raises ``ConfigError``.
        space: Distributions by parameter name.
        directions: Of the objectives.
        network: What is known of the layers behind parameters, for strategies that ask (``base.NETWORK``).
        cost: The metric of the second objective, likewise (``base.COST``).
    """

    def __init__(
        self,
        strategy: str,
        space: Distributions,
        directions: Sequence[StudyDirection],
        network: Mapping[str, Sequence[float]],
        cost: str = "",
    ) -> None:
        self._strategy = strategies[strategy]
        self._space = space
        self._directions = list(directions)
        self._network = {name: list(values) for name, values in network.items()}
        self._cost = cost
        self._broken: set[str] = set()  # budgets that some trial exceeds
        self._start_over()

    def _start_over(self) -> None:
        with quiet():
            self._memory = InMemoryStorage()
            self._copy = optuna.create_study(directions=self._directions, sampler=RandomSampler(), storage=self._memory)
        self._copy.set_user_attr(NETWORK, self._network)
        self._copy.set_user_attr(COST, self._cost)
        self._study = self._memory.get_study_id_from_name(self._copy.study_name)
        self._complete: set[int] = set()  # points copied for good
        self._running: dict[int, int] = {}  # copies of those that others work on, by number

    def propose(self, chains: Sequence[Chain], seed: int) -> dict[str, Any]:
        """Values for every parameter.

        Args:
            chains: The study as it is now.
            seed: Of everything random in the proposal.
        """
        self._follow(chains)
        self._copy.sampler = _KnownSpace(self._strategy(seed), self._space)
        trial = self._copy.ask(self._space)
        self._forget(trial._trial_id)
        return trial.params

    def _follow(self, chains: Sequence[Chain]) -> None:
        """Copy what has become complete, and what others are working on, so that strategies can keep away from it."""
        new = [chain for chain in self._points(chains) if chain.state == "complete"]
        broken = {m for chain in new for m, excess in violations_of(chain.current).items() if excess > 0}
        if not broken <= self._broken:
            self._broken |= broken
            self._start_over()
        points = self._points(chains)
        running = {chain.current.number: chain for chain in points if chain.state == "running"}
        for number in self._running.keys() - running.keys():
            self._forget(self._running.pop(number))
        for chain in points:
            if chain.state == "complete":
                self._complete.add(chain.index)
                self._add(chain, OptunaState.COMPLETE)
        for number, chain in running.items():
            if number not in self._running:
                self._running[number] = self._add(chain, OptunaState.RUNNING)

    def _points(self, chains: Sequence[Chain]) -> list[Chain]:
        """What is not copied for good."""
        # A baseline that is no point of the space has only a near one, which did not get its score.
        return [
            chain for chain in chains if chain.index not in self._complete and CANDIDATE not in chain.current.user_attrs
        ]

    def _add(self, chain: Chain, state: OptunaState) -> int:
        origin = {ORIGIN: chain.current.user_attrs.get(ORIGIN, SEARCH)}
        copy = with_parameters(chain.current, state, self._space, origin, self._broken)
        return self._memory.create_new_trial(self._study, copy)

    def _forget(self, copy: int) -> None:
        """Fail a copy, so that samplers pass it over."""
        self._memory.set_trial_state_values(copy, OptunaState.FAIL)
