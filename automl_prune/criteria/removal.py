"""Greedy removal with optimal compensation (structured optimal brain surgeon): the mathematics, on plain matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

ROUND = 0.25
"""Share of the remaining channels that is removed before the matrices are brought up to date and made smaller."""


@dataclass(frozen=True, slots=True)
class Quadratic:
    """What removing channels costs one layer: ``tr(D moment D^T)`` for a change D of its weight, to be minimised.

    Columns are ordered by channel: channel c has columns ``c * positions`` to ``(c + 1) * positions - 1``.

    Attributes:
        weight: Shape (outputs, width * positions), float64; only the columns that channels may be removed from.
        inverse: Inverse of the damped second moment of *all* the layer's inputs, restricted to those columns,
            shape (width * positions, width * positions), float64. Inputs that stay compensate too.
        positions: Columns per channel.
        scale: Errors are divided by it: what makes layers comparable, for instance the output's energy.
    """

    weight: torch.Tensor
    inverse: torch.Tensor
    positions: int
    scale: float

    @property
    def width(self) -> int:
        """Number of channels."""
        return self.weight.shape[1] // self.positions


def removal_order(
    layers: Sequence[Quadratic], on_step: Callable[[int, int], None] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Remove channel after channel, always the one that raises the layers' summed relative errors least.

    The error of a removed set S is that of the best weights without it, ``tr(W_S (inverse_SS)^-1 W_S^T)``; after
    each removal weight and inverse are those of the smaller problem (optimal brain surgeon, Hassibi & Stork 1993,
    section 3; for blocks of columns Kurtic et al. 2022, arXiv:2203.07259, section 3.2, and Frantar & Alistarh
    2022, arXiv:2208.11580, appendix on structured pruning). So the sums of the increments are exact errors.

    Args:
        layers: The consumers of one group of channels, all of one width; not changed.
        on_step: Called with (channels removed, width).

    Returns:
        The channels in the order they go, int64, and by how much each raises the error, float64; both of shape
        (width,). The order is complete: the last channel is the one to keep longest.
    """
    width = layers[0].width
    parts = [_Layer(layer) for layer in layers]
    left = torch.arange(width)
    order: list[int] = []
    increments: list[float] = []
    while len(left):
        count = max(1, int(len(left) * ROUND))
        gone = torch.zeros(len(left), dtype=torch.bool)
        for part in parts:
            part.begin(count)
        for _ in range(count):
            errors = torch.stack([part.errors() for part in parts]).sum(dim=0)
            errors[gone] = torch.inf
            channel = int(errors.argmin())
            order.append(int(left[channel]))
            increments.append(sum(part.remove(channel) for part in parts))
            gone[channel] = True
            if on_step is not None:
                on_step(len(order), width)
        left = left[~gone]
        for part in parts:
            part.compact(~gone)
    return torch.tensor(order), torch.tensor(increments, dtype=torch.float64)


class _Layer:
    """One layer's problem while channels are removed.

    With the Cholesky factor L of the removed channel's diagonal block of the inverse, a removal subtracts
    ``u u^T`` from the inverse and ``b u^T`` from the weight, where ``u = inverse[:, S] L^-T`` and
    ``b = weight[:, S] L^-T``; the error grows by ``|b|^2``. Within a round, only what the choice needs is kept up
    to date: the diagonal blocks of the inverse and of ``weight^T weight``. The updates themselves are
    collected, and applied at its end in one product of matrices, on the channels that are left. That is several
    times faster than updating everything at each step, which is bound by memory.
    """

    def __init__(self, layer: Quadratic) -> None:
        self.weight, self.inverse = layer.weight, layer.inverse
        self.positions, self.scale = layer.positions, layer.scale

    def begin(self, count: int) -> None:
        """Start a round of ``count`` removals."""
        p = self.positions
        self.u = self.weight.new_empty(count * p, self.weight.shape[1])
        self.b = self.weight.new_empty(count * p, self.weight.shape[0])
        self.done = 0
        columns = self.weight.T.reshape(-1, p, self.weight.shape[0])
        self.grams = columns @ columns.mT
        self.blocks = _diagonal_blocks(self.inverse, p).clone()

    def errors(self) -> torch.Tensor:
        """How much the removal of each channel would raise the error, shape (channels,)."""
        if self.positions == 1:
            return (self.grams / self.blocks).flatten() / self.scale
        solved: torch.Tensor = torch.linalg.solve_ex(self.blocks, self.grams)[0]
        return solved.diagonal(dim1=1, dim2=2).sum(dim=1) / self.scale

    def remove(self, channel: int) -> float:
        """Remove one channel; how much the error grows."""
        p, n = self.positions, self.done
        at = slice(channel * p, (channel + 1) * p)
        u, b = self.u[:n], self.b[:n]
        rows = torch.addmm(self.inverse[at], u[:, at].T, u, alpha=-1)
        columns = torch.addmm(self.weight[:, at].T, u[:, at].T, b, alpha=-1)
        factor = torch.linalg.cholesky(self.blocks[channel])
        rows = torch.linalg.solve_triangular(factor, rows, upper=False)
        columns = torch.linalg.solve_triangular(factor, columns, upper=False)
        # inner products of every column of the present weight with the removed ones, shape (channels, p, p)
        inner = torch.addmm(columns @ self.weight, columns @ b.T, u, alpha=-1).T.reshape(-1, p, p)
        mine = rows.T.reshape(-1, p, p)
        cross = inner @ mine.mT
        self.grams += mine @ (columns @ columns.T) @ mine.mT - cross - cross.mT
        self.blocks -= mine @ mine.mT
        # A removed channel is never chosen again; its block, now zero up to rounding, must stay solvable.
        self.blocks[channel] = torch.eye(p, dtype=factor.dtype)
        self.u[n : n + p], self.b[n : n + p] = rows, columns
        self.done = n + p
        return float(columns.square().sum()) / self.scale

    def compact(self, keep: torch.Tensor) -> None:
        """End a round: bring everything up to date, for the channels that ``keep`` (a mask) says are left."""
        columns = keep.repeat_interleave(self.positions).nonzero().flatten()
        u = self.u[: self.done, columns]
        self.inverse = self.inverse[columns][:, columns].addmm_(u.T, u, alpha=-1)
        self.weight = self.weight[:, columns].addmm_(self.b[: self.done].T, u, alpha=-1)


def _diagonal_blocks(matrix: torch.Tensor, size: int) -> torch.Tensor:
    """The square blocks on the diagonal, shape (blocks, size, size); a view."""
    rows, columns = matrix.stride()
    return matrix.as_strided(
        (len(matrix) // size, size, size), (size * (rows + columns), rows, columns), matrix.storage_offset()
    )
