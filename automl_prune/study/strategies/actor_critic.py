"""Deep deterministic policy gradient (Lillicrap et al. 2016, arXiv:1509.02971, algorithm 1): networks and updates."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from automl_prune.seeding import derive_seed, seeded

UNITS = 300
"""Of each of the two hidden layers of actor and critic, as in AMC."""

ACTOR_RATE, CRITIC_RATE = 1e-3, 3e-3
"""Learning rates. AMC's are ten and three times lower, for many times the updates."""

FOLLOW = 0.05
"""Share by which the target networks follow at every update."""

BATCH = 64


@dataclass(frozen=True, slots=True)
class Transitions:
    """Steps of episodes, one row each.

    Attributes:
        state: Shape (steps, features).
        action: Shape (steps,), in [0, 1].
        reward: Shape (steps,).
        following: The state after it, shape (steps, features); of no meaning after the last.
        last: Whether the episode ended, shape (steps,).
    """

    state: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    following: torch.Tensor
    last: torch.Tensor

    def take(self, rows: torch.Tensor) -> Transitions:
        """Some of the rows."""
        return Transitions(
            self.state[rows], self.action[rows], self.reward[rows], self.following[rows], self.last[rows]
        )

    @classmethod
    def joined(cls, parts: list[Transitions]) -> Transitions:
        """All rows of several."""
        return cls(
            torch.cat([part.state for part in parts]),
            torch.cat([part.action for part in parts]),
            torch.cat([part.reward for part in parts]),
            torch.cat([part.following for part in parts]),
            torch.cat([part.last for part in parts]),
        )


class ActorCritic:
    """A policy and an estimate of what it earns.

    Everything random comes from a seed of the number of updates, so that the same updates in the same order give
    the same networks in every process.

    Args:
        features: Length of a state.
    """

    def __init__(self, features: int) -> None:
        with seeded("actor critic", features):
            self.actor = _network(features)
            self.critic = _network(features + 1)
            self._actor_target, self._critic_target = _network(features), _network(features + 1)
        self._actor_target.load_state_dict(self.actor.state_dict())
        self._critic_target.load_state_dict(self.critic.state_dict())
        self._actor_step = torch.optim.Adam(self.actor.parameters(), ACTOR_RATE)
        self._critic_step = torch.optim.Adam(self.critic.parameters(), CRITIC_RATE)
        self._updates = 0

    @torch.no_grad()
    def act(self, state: torch.Tensor) -> float:
        """The policy's action in one state, shape (features,); in (0, 1)."""
        return float(torch.sigmoid(self.actor(state)))

    def update(self, buffer: Transitions) -> None:
        """One step of critic and actor on a random batch, without discount, as in AMC (section 3.3)."""
        rows = torch.Generator().manual_seed(derive_seed("actor critic batch", self._updates))
        self._updates += 1
        batch = buffer.take(torch.randint(len(buffer.action), (min(BATCH, len(buffer.action)),), generator=rows))
        with torch.no_grad():
            after = torch.sigmoid(self._actor_target(batch.following))
            worth = self._critic_target(torch.cat([batch.following, after], dim=1)).squeeze(1)
            wanted = torch.where(batch.last, batch.reward, batch.reward + worth)
        found = self.critic(torch.cat([batch.state, batch.action[:, None]], dim=1)).squeeze(1)
        self._critic_step.zero_grad()
        nn.functional.mse_loss(found, wanted).backward()
        self._critic_step.step()
        self._actor_step.zero_grad()
        (-self.critic(torch.cat([batch.state, torch.sigmoid(self.actor(batch.state))], dim=1)).mean()).backward()
        self._actor_step.step()
        _follow(self._actor_target, self.actor)
        _follow(self._critic_target, self.critic)


def _network(features: int) -> nn.Sequential:
    network = nn.Sequential(
        nn.Linear(features, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, 1)
    )
    with torch.no_grad():
        last = network[-1]
        assert isinstance(last, nn.Linear)
        last.weight.uniform_(-3e-3, 3e-3)  # outputs start near 0 (Lillicrap et al. 2016, section 7)
        last.bias.zero_()
    return network


@torch.no_grad()
def _follow(target: nn.Module, leader: nn.Module) -> None:
    for ours, theirs in zip(target.parameters(), leader.parameters(), strict=True):
        ours.lerp_(theirs, FOLLOW)
