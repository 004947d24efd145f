"""AMC's reinforcement learner as a sampler (He et al. 2018, "AMC: AutoML for model compression", arXiv:1802.03494).

An episode is a trial: the agent walks through the parameters in network order and takes an action in [0, 1] for
each, which is the parameter's value between its bounds. What it knows before an action is what AMC's agent knows
(section 3.1): where it is, the layers behind the parameter, what earlier groups have spent, what is left, its last
action. The reward comes when the whole candidate is scored, and every step of the episode gets it.

The paper keeps an episode within its budget by clipping actions to what the rest of the network can still make up
for (algorithm 1). Here the projection does that for every strategy: an action says how wide a group is *relative to
the others*, and the projection's common scale is the greatest at which the candidate is within every budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial
from scipy.special import ndtr, ndtri

from automl_prune.errors import StudyError
from automl_prune.seeding import derive_seed
from automl_prune.study.strategies.actor_critic import ActorCritic, Transitions
from automl_prune.study.strategies.base import COST, NETWORK, strategies
from automl_prune.study.strategies.history import (
    Cube,
    Replayed,
    choices,
    complete_trials,
    merit,
    whole_budget,
)

Reward = Literal["error", "error times log cost"]

WARM_UP = 20
"""Complete trials, baselines included, before the policy is asked; until then actions are random."""

NOISE, DECAY = 0.5, 0.97
"""Standard deviation of the first actions after that, and its factor from episode to episode (section 3.3). The
paper's factor is 0.99 for 800 episodes; a search here has a quarter of them."""

MEMORY = 0.9
"""Share of the past in the moving averages of reward and of its spread."""

BUFFER = 2000
"""Most steps that are kept, the latest ones: the critic's targets are of the present policy."""

UPDATES = 2
"""Of the networks after each episode. AMC makes one a step; this bounds what replaying a whole study takes."""


@strategies.register("ddpg")
def ddpg(seed: int) -> BaseSampler:
    """Reward ``-error``: the best score at the whole budget (section 3.3, resource-constrained compression)."""
    return _DDPG("error", seed)


@strategies.register("ddpg_cost")
def ddpg_cost(seed: int) -> BaseSampler:
    """Reward ``-error * log(cost)``: score against cost, which is an action too (section 3.3, accuracy-guaranteed).

    The error is ``1 - score`` of a score that is at most 1, or the score itself where lower is better.
    """
    return _DDPG("error times log cost", seed)


class _DDPG(Replayed):
    """Acts as an agent would that had lived through the study's trials in their order.

    The networks are a function of the trials alone, and the seed makes the noise. So the agent may be dropped and
    made again at any time: a resumed study rebuilds it, and workers of one study learn from each other's trials.
    """

    def __init__(self, reward: Reward, seed: int) -> None:
        super().__init__(seed)
        self._reward: Reward = reward

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        fixed = whole_budget(search_space) if self._reward == "error" else {}
        cube = Cube.of(search_space, *fixed)
        drawn = {}
        if cube.ranges:
            agent = _agent(study, cube, self._reward)
            drawn = cube.decode(agent.episode(np.random.default_rng(derive_seed("ddpg noise", self.seed))))
        return {**fixed, **choices(study, search_space, self.seed), **drawn}


_agents: WeakKeyDictionary[Study, dict[Reward, _Agent]] = WeakKeyDictionary()
"""Agents of the studies of this process, so that a proposal learns from the new trials alone. Only speed is in it."""


def _agent(study: Study, cube: Cube, reward: Reward) -> _Agent:
    """The agent that has seen every complete trial of the study."""
    trials, known = complete_trials(study), _agents.setdefault(study, {})
    agent = known.get(reward)
    numbers = tuple(trial.number for trial in trials)
    if agent is None or agent.cube != cube or agent.seen != numbers[: len(agent.seen)]:
        agent = known[reward] = _Agent(cube, study.user_attrs.get(NETWORK, {}))
    for trial in trials[len(agent.seen) :]:
        agent.learn(trial, _reward(study, trial, reward))
    return agent


def _reward(study: Study, trial: FrozenTrial, kind: Reward) -> float:
    score = merit(study, trial)
    if kind == "error":
        return score
    error = 1 - score if study.directions[0] == StudyDirection.MAXIMIZE else -score
    if error < 0:
        raise StudyError(
            f"strategy 'ddpg_cost' wants an error of at least 0, and trial {trial.number} scored {trial.values[0]}; "
            "use strategy 'ddpg', whose reward is the score itself"
        )
    return -error * math.log(max(trial.values[1] * _units(study), 1.0))


def _units(study: Study) -> float:
    """What a cost is multiplied with for its logarithm: seconds become nanoseconds, others count large things."""
    return 1e9 if study.user_attrs.get(COST) == "latency" else 1.0


@dataclass(slots=True)
class _Average:
    """Moving averages of rewards and of how far they lie from it."""

    mean: float | None = None
    spread: float = 0.0

    def standardise(self, reward: float) -> float:
        """The reward relative to those before it, and then remembered; 0 for the first."""
        if self.mean is None:
            self.mean = reward
        gap = reward - self.mean
        self.spread = MEMORY * self.spread + (1 - MEMORY) * abs(gap) if self.spread else abs(gap)
        self.mean += (1 - MEMORY) * gap
        return gap / self.spread if self.spread else 0.0


class _Agent:
    """The learner: what it has seen, its buffer and its networks.

    Args:
        cube: The parameters it acts on, in network order.
        network: What is known of the layers behind a parameter, by its name; the first number is the share of cost.
    """

    def __init__(self, cube: Cube, network: Mapping[str, Sequence[float]]) -> None:
        self.cube = cube
        self.seen: tuple[int, ...] = ()
        known = max((len(values) for values in network.values()), default=1)
        rows = [list(network.get(name, ())) for name in cube.ranges]
        self._layers = np.array([row + [0.0] * (known - len(row)) for row in rows])
        shares, steps = self._layers[:, 0], len(rows)
        self._places = np.eye(steps)
        self._rest = shares[::-1].cumsum()[::-1] - shares
        self._average = _Average()
        self._episodes: list[Transitions] = []
        self._networks = ActorCritic(steps + self._layers.shape[1] + 3)

    def learn(self, trial: FrozenTrial, reward: float) -> None:
        """Live through one more episode, then update the networks."""
        actions = self.cube.encode(trial.params)
        steps = len(actions)
        states = torch.from_numpy(np.stack([self._state(actions[:step]) for step in range(steps)])).float()
        # A share for every step, so that what an episode earns does not grow with the number of parameters.
        each = self._average.standardise(reward) / steps
        last = torch.arange(steps) == steps - 1
        self._episodes.append(
            Transitions(
                states, torch.from_numpy(actions).float(), torch.full((steps,), each), states.roll(-1, dims=0), last
            )
        )
        self._episodes = self._episodes[-max(1, BUFFER // steps) :]
        self.seen = (*self.seen, trial.number)
        if len(self.seen) >= WARM_UP:
            buffer = Transitions.joined(self._episodes)
            for _ in range(UPDATES):
                self._networks.update(buffer)

    def episode(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """The actions of a new episode with exploration noise, shape (parameters,)."""
        deviation = NOISE * DECAY ** max(0, len(self.seen) - WARM_UP)
        actions = np.empty(len(self.cube.ranges))
        for step in range(len(actions)):
            if len(self.seen) < WARM_UP:
                actions[step] = rng.uniform()
            else:
                wanted = self._networks.act(torch.from_numpy(self._state(actions[:step])).float())
                actions[step] = truncated_normal(wanted, deviation, rng)
        return actions

    def _state(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is known before the next action, after these: place, layers, spent, rest, last action."""
        step = len(actions)
        spent = float(self._layers[:step, 0] @ actions)
        last = actions[-1] if step else 0.0
        # AMC has the number of the step. One input for each step is learnt in a tenth of the episodes.
        return np.array([*self._places[step], *self._layers[step], spent, self._rest[step], last])


def truncated_normal(mean: float, deviation: float, rng: np.random.Generator) -> float:
    """A draw from the normal distribution cut off outside [0, 1], by inversion of its distribution function."""
    low, high = ndtr((0 - mean) / deviation), ndtr((1 - mean) / deviation)
    return float(np.clip(mean + deviation * ndtri(rng.uniform(low, high)), 0.0, 1.0))
