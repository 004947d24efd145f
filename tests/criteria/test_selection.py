"""Greedy selection against brute force, the Lasso's path against scikit-learn's Lasso on explicit samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Lasso

from automl_prune.criteria.selection import contribution_order, lasso_path

WIDTH, SAMPLES, OUTPUTS = 8, 60, 3


def contributions(seed: int) -> NDArray[np.float64]:
    """Correlated contributions of channels to a layer's outputs, shape (samples, outputs, width)."""
    random = np.random.default_rng(seed)
    inputs = np.maximum(random.normal(size=(SAMPLES, WIDTH)) @ random.normal(size=(WIDTH, WIDTH)), 0)
    weights = random.normal(size=(OUTPUTS, WIDTH))
    found: NDArray[np.float64] = inputs[:, None, :] * weights
    return found


def products(z: NDArray[np.float64]) -> torch.Tensor:
    flat = z.reshape(-1, z.shape[-1])
    return torch.tensor(flat.T @ flat)


@pytest.mark.parametrize("seed", range(4))
def test_every_greedy_step_leaves_the_least_sum(seed: int) -> None:
    z = contributions(seed)
    order, increments = contribution_order(products(z))
    removed: list[int] = []
    for step in range(WIDTH):
        sums = {c: float((z[:, :, [*removed, c]].sum(axis=2) ** 2).sum()) for c in range(WIDTH) if c not in removed}
        best = min(sums, key=lambda channel: sums[channel])
        assert order[step] == best
        removed.append(best)
        np.testing.assert_allclose(increments[: step + 1].sum(), sums[best], rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_the_path_gives_the_sets_of_the_lasso(seed: int) -> None:
    """Between any two penalties of the path, the channels still in are those with a coefficient in the Lasso."""
    z = contributions(seed)
    flat = z.reshape(-1, WIDTH)
    order, penalties = lasso_path(products(z))
    assert sorted(order.tolist()) == list(range(WIDTH))
    assert bool((penalties.diff() >= 0).all())
    for step in range(1, WIDTH):
        low, high = float(penalties[step - 1]), float(penalties[step])
        # scikit-learn divides the squares by the number of samples
        model = Lasso(alpha=(low + high) / 2 / len(flat), fit_intercept=False, tol=1e-12, max_iter=100_000)
        model.fit(flat, flat.sum(axis=1))
        assert set(np.flatnonzero(model.coef_)) == set(order[step:].tolist())


def test_a_copy_leaves_before_everything_else() -> None:
    z = contributions(0)
    z[:, :, 5] = z[:, :, 2]
    order, penalties = lasso_path(products(z))
    assert order[0] in (2, 5)
    assert penalties[0] < penalties[1]


def test_contributions_that_are_all_zero_have_some_order() -> None:
    order, penalties = lasso_path(torch.zeros(4, 4, dtype=torch.float64))
    assert sorted(order.tolist()) == [0, 1, 2, 3]
    assert penalties.tolist() == [0.0] * 4
