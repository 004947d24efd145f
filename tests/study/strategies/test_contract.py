"""Every registered strategy keeps the contract, and does better than chance where that is what it is for."""

from __future__ import annotations

import pytest

from automl_prune.study.strategies import strategies
from automl_prune.testing import check_improvement, check_strategy
from automl_prune.testing.strategy import Goal

TRIALS = {"gp": 14}  # a proposal takes it a third of a second, and more once a budget is broken
"""Trials of a study where they are not 30."""


@pytest.mark.parametrize("name", list(strategies))
def test_contract(name: str) -> None:
    check_strategy(name, TRIALS.get(name, 30))


@pytest.mark.parametrize(
    ("name", "goal", "trials", "share"),
    [
        ("tpe", "front", 80, 0.85),
        ("gp", "front", 20, 0.85),
        ("nsga2", "front", 120, 0.85),
        ("nsga3", "front", 120, 0.85),
        ("cmaes", "score", 80, 0.6),
        ("ddpg", "score", 120, 0.85),
    ],
)
def test_improvement(name: str, goal: Goal, trials: int, share: float) -> None:
    check_improvement(name, goal, share=share, trials=trials)
