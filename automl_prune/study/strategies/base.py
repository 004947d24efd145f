"""What a strategy is: a function of a seed that gives an Optuna sampler."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from optuna.samplers import BaseSampler

from automl_prune.registry import Registry

Strategy: TypeAlias = Callable[[int], BaseSampler]
"""(seed) -> a new sampler. It is made anew for every proposal: what it knows is what the study holds, so that a
resumed study goes on as the uninterrupted one would. It proposes from complete trials alone: their parameters,
values, constraints, and the user attribute ``origin``."""

strategies: Registry[Strategy] = Registry("strategies")

COST = "cost"
"""User attribute of the study a strategy sees: the metric of its second objective."""

NETWORK = "network"
"""User attribute of the study a strategy sees: what is known of the layers behind a parameter, by parameter; each
value is a list of numbers in [0, 1], the first being the share of the dense model's cost (``Proposer``)."""
