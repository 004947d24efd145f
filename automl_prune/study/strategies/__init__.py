"""Strategies: what proposes the next point. One file each, known by name; ``testing.check_strategy`` is their contract.

==========  ================================================================================================
name        proposes
==========  ================================================================================================
random      anything
tpe         where good trials are denser than others (tree of Parzen estimators)
gp          where a Gaussian process expects the front to grow most
nsga2       children of the front, which crowding keeps spread out
nsga3       children of the front, which reference directions keep spread out
cmaes       from a normal distribution that follows the best trials, at the whole budget
ddpg        an actor-critic's action for group after group (AMC), at the whole budget
ddpg_cost   the same, with the cost in the reward
==========  ================================================================================================
"""

from automl_prune.study.strategies import chance, cma, ddpg, evolution, gaussian_process, tpe
from automl_prune.study.strategies.base import Strategy, strategies
from automl_prune.study.strategies.proposer import Proposer

__all__ = ["Proposer", "Strategy", "chance", "cma", "ddpg", "evolution", "gaussian_process", "strategies", "tpe"]
