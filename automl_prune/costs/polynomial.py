"""Costs as exact polynomials of the group widths: no model is built to know what a candidate costs.

A layer's multiply-accumulates are a constant times the lengths of the axes it contracts, and each length is a
constant (protected channels) plus, for every group, its width times the positions each channel takes there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class AxisLength:
    """Length of one axis: ``constant + sum(positions[group] * width[group])``."""

    constant: int
    positions: Mapping[str, int]

    def at(self, widths: Mapping[str, int]) -> int:
        """The length for given group widths."""
        return self.constant + sum(count * widths[group] for group, count in self.positions.items())


@dataclass(frozen=True, slots=True)
class Term:
    """``coefficient`` times the product of some axes' lengths; ``name`` says which layer or parameter it is."""

    name: str
    coefficient: int
    axes: tuple[AxisLength, ...]

    def at(self, widths: Mapping[str, int]) -> int:
        """The term's value for given group widths."""
        value = self.coefficient
        for axis in self.axes:
            value *= axis.at(widths)
        return value


@dataclass(frozen=True)
class WidthPolynomial:
    """A sum of terms over the widths of ``groups``, monotone increasing in every width. Immutable.

    Attributes:
        groups: Names of the variables, in the order of the vectors that ``evaluate`` takes.
        terms: The summands, kept for tables by layer.
    """

    groups: tuple[str, ...]
    terms: tuple[Term, ...]
    _compiled: tuple[NDArray[np.int64], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        degree = max((len(term.axes) for term in self.terms), default=0)
        column = {group: i for i, group in enumerate(self.groups)}
        slopes = np.zeros((degree, len(self.terms), len(self.groups)), dtype=np.int64)
        constants = np.ones((degree, len(self.terms)), dtype=np.int64)
        for row, term in enumerate(self.terms):
            for depth, axis in enumerate(term.axes):
                constants[depth, row] = axis.constant
                for group, count in axis.positions.items():
                    slopes[depth, row, column[group]] = count
        coefficients = np.array([term.coefficient for term in self.terms], dtype=np.int64)
        object.__setattr__(self, "_compiled", (slopes, constants, coefficients))

    @property
    def monotone(self) -> bool:
        """True: all coefficients are positive."""
        return True

    def values(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The exact value of every term for many vectors of widths, shape (many, groups), as shape (terms, many)."""
        slopes, constants, coefficients = self._compiled
        if not len(slopes):
            return np.repeat(coefficients[:, None], len(widths), axis=1)
        lengths = slopes @ np.asarray(widths, dtype=np.int64).T + constants[:, :, None]
        return np.asarray(coefficients[:, None] * lengths.prod(axis=0))

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> int:
        """The exact value for a vector of widths, shape (groups,), in the order of ``groups``."""
        slopes, constants, coefficients = self._compiled
        lengths = slopes @ np.asarray(widths, dtype=np.int64) + constants
        return int(coefficients @ lengths.prod(axis=0)) if len(lengths) else int(coefficients.sum())

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The exact values for many vectors of widths, shape (many, groups), as shape (many,)."""
        return np.asarray(self.values(widths).sum(axis=0))

    def at(self, widths: Mapping[str, int]) -> int:
        """The exact value for widths by group name; every group must be named."""
        return self.evaluate([widths[group] for group in self.groups])
