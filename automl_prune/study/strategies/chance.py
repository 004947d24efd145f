"""Chance: what every other strategy has to beat."""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from automl_prune.study.strategies.base import strategies


@strategies.register("random")
def random(seed: int) -> BaseSampler:
    """Every parameter alone, uniformly."""
    return RandomSampler(seed=seed)
