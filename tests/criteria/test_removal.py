"""Greedy removal against exact least squares over every subset."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from automl_prune.criteria.removal import Quadratic, removal_order
from automl_prune.criteria.scores import in_order, keep_best

Array = NDArray[np.float64]


class Layer:
    """A random layer: ``others`` inputs beside those of the group, which stay and may compensate."""

    def __init__(self, seed: int, width: int, positions: int, outputs: int, others: int = 0) -> None:
        random = np.random.default_rng(seed)
        n = width * positions + others
        inputs = random.normal(size=(4 * n, n)) @ random.normal(size=(n, n))
        self.moment: Array = inputs.T @ inputs / len(inputs) + 0.01 * np.eye(n)
        self.weight: Array = random.normal(size=(outputs, n))
        self.positions, self.mine = positions, width * positions
        self.energy = float(np.trace(self.weight @ self.moment @ self.weight.T))

    def quadratic(self) -> Quadratic:
        inverse = np.linalg.inv(self.moment)[: self.mine, : self.mine]
        return Quadratic(torch.tensor(self.weight[:, : self.mine]), torch.tensor(inverse), self.positions, self.energy)

    def error(self, removed: list[int]) -> float:
        """Relative error of the best weights without some channels, by numpy's least squares."""
        kept = [i for i in range(len(self.moment)) if i >= self.mine or i // self.positions not in removed]
        design = np.linalg.cholesky(self.moment).T
        target = design @ self.weight.T
        fitted = design[:, kept] @ np.linalg.lstsq(design[:, kept], target, rcond=None)[0] if kept else 0 * target
        return float(((target - fitted) ** 2).sum()) / self.energy


CASES: dict[str, list[dict[str, Any]]] = {
    "one column per channel": [{"positions": 1, "outputs": 5}],
    "blocks": [{"positions": 3, "outputs": 4}],
    "fewer outputs than columns": [{"positions": 4, "outputs": 2}],
    "other inputs stay": [{"positions": 2, "outputs": 6, "others": 5}],
    "several consumers": [{"positions": 1, "outputs": 5}, {"positions": 3, "outputs": 2, "others": 2}],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("width", [1, 9])
def test_every_step_is_the_best_and_its_error_exact(case: str, width: int) -> None:
    layers = [Layer(number, width, **options) for number, options in enumerate(CASES[case])]
    order, increments = removal_order([layer.quadratic() for layer in layers])
    removed: list[int] = []
    for step in range(width):
        errors = {
            channel: sum(layer.error([*removed, channel]) for layer in layers)
            for channel in range(width)
            if channel not in removed
        }
        best = min(errors, key=lambda channel: errors[channel])
        assert order[step] == best
        removed.append(best)
        np.testing.assert_allclose(increments[: step + 1].sum(), errors[best], rtol=1e-8)


def test_arguments_are_left_alone_and_progress_is_told() -> None:
    quadratic = Layer(0, 6, 2, 3).quadratic()
    weight, inverse = quadratic.weight.clone(), quadratic.inverse.clone()
    told: list[tuple[int, int]] = []
    removal_order([quadratic], on_step=lambda done, total: told.append((done, total)))
    assert torch.equal(quadratic.weight, weight)
    assert torch.equal(quadratic.inverse, inverse)
    assert told == [(step, 6) for step in range(1, 7)]


def test_a_copy_goes_first_and_costs_nothing() -> None:
    """Two channels that always carry the same: one is free, and then the other is dear."""
    moment = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.5]]) + 1e-6 * np.eye(3)
    weight = torch.tensor([[2.0, 2.0, 1.0]], dtype=torch.float64)
    order, increments = removal_order([Quadratic(weight, torch.tensor(np.linalg.inv(moment)), 1, 1.0)])
    assert order[0] in (0, 1)
    assert order[1] == 2
    np.testing.assert_allclose(increments, [0, 0.5, 16], atol=1e-4)


@given(st.lists(st.sampled_from([-1.0, 0.0, 1e-300, 1e-9, 0.5, 0.5, 1.0, 1e6]), min_size=1, max_size=40), st.data())
def test_the_best_by_score_are_those_removed_last(increments: list[float], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(increments))))
    scores = in_order(torch.tensor(order), torch.tensor(increments))
    assert bool((scores > 0).all())
    assert bool(torch.isfinite(scores).all())
    normalised = scores / scores.max()
    for keep in range(1, len(order) + 1):
        assert list(keep_best(normalised / normalised.mean(), keep)) == sorted(order[len(order) - keep :])


def test_rising_increments_are_the_scores() -> None:
    scores = in_order(torch.tensor([2, 0, 1]), torch.tensor([0.1, 0.4, 0.2], dtype=torch.float64))
    np.testing.assert_allclose(scores, [0.4, 0.4, 0.1], rtol=1e-8)
