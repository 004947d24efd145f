"""Channel selection from the products of the channels' contributions alone: greedily, and along the Lasso's path."""

from __future__ import annotations

import warnings

import numpy as np
import torch


def contribution_order(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Grow the removed set by the channel that leaves the sum of its contributions smallest, until all are gone.

    Args:
        products: Inner products of the channels' contributions, shape (width, width), symmetric; not changed.

    Returns:
        The channels in the order they go, int64, and by how much each raises the squared sum, float64, which may be
        negative; both of shape (width,).
    """
    costs = products.diagonal().clone()
    order, increments = [], []
    for _ in range(len(costs)):
        channel = int(costs.argmin())
        order.append(channel)
        increments.append(float(costs[channel]))
        costs += 2 * products[channel]
        costs[channel] = torch.inf
    return torch.tensor(order), torch.tensor(increments, dtype=torch.float64)


def lasso_path(products: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """At which penalty each channel leaves the regression of the summed contributions on the single ones.

    Minimises ``|sum_c (1 - beta_c) z_c|^2 / 2 + alpha |beta|_1`` for every alpha at once: the path is linear
    between finitely many alphas, which scikit-learn's LARS finds exactly (Efron et al. 2004, section 3.1).

    Args:
        products: As in ``contribution_order``; not changed.

    Returns:
        The channels in the order they leave as alpha grows, int64, and the alpha at which they do, float64; 0 for
        those that others replace at any penalty. Of equals, the one less like the sum leaves first. Both of
        shape (width,).
    """
    from sklearn.exceptions import ConvergenceWarning  # here, because its import takes a second
    from sklearn.linear_model import lars_path_gram

    scale = float(products.trace()) or 1.0
    gram = products.numpy() / scale
    target = gram.sum(axis=1)
    with warnings.catch_warnings():
        # it warns where channels are copies of others and stay out, or where nothing is left to explain
        warnings.simplefilter("ignore", ConvergenceWarning)
        alphas, _, path = lars_path_gram(target, gram, n_samples=1, method="lasso", max_iter=8 * len(gram))
    active = path != 0
    # a coefficient that is first seen at a knot left 0 at the knot before
    leaves = np.where(active.any(axis=1), alphas[np.maximum(active.argmax(axis=1) - 1, 0)], 0.0)
    order = np.lexsort((np.abs(target), leaves))
    return torch.from_numpy(order), torch.from_numpy(leaves[order] * scale)
