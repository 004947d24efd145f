"""Where every channel comes from: integer labels that travel beside tensors, and what is learnt while they do.

Every axis of every parameter and buffer starts with fresh labels, one per position. A tensor then knows, for each
of its dimensions, which label each position carries (nothing for batch and space). Operators move labels as they
move elements (``rules.py``); where labels meet they are tied, and tied labels live and die together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

IntArray = NDArray[np.int64]
NONE = -1
"""The label of a position that belongs to no channel (padding, the model's input)."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one tensor.

    Attributes:
        dims: For each labelled dimension, one label per position, shape (size of the dimension,).
        activation: Whether the tensor depends on the model's input; False for parameters and what is computed
            from parameters alone.
    """

    dims: Mapping[int, IntArray] = field(default_factory=dict)
    activation: bool = False


UNLABELLED = Labels()


@dataclass(frozen=True, slots=True)
class ParameterAxis:
    """One axis of a parameter or buffer and the range of labels [start, start + length) it was given."""

    parameter: str
    axis: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Contraction:
    """A convolution or matrix product: multiply-accumulates = coefficient * product of the axes' lengths.

    Attributes:
        layer: Qualified name of the module that ran it.
        coefficient: Product of the unlabelled lengths, for one sample.
        axes: Labels of the labelled lengths.
    """

    layer: str
    coefficient: int
    axes: tuple[IntArray, ...]


class Provenance:
    """Labels, ties and protections gathered while a model runs. Grows; read it when the run is over."""

    def __init__(self, model: nn.Module) -> None:
        self.axes: list[ParameterAxis] = []
        self.contractions: list[Contraction] = []
        self.layer = ""
        """Name of the module running now."""
        self.counting = True
        """Whether contractions are recorded (not again when the model runs a second time)."""
        self._labels: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._ties: list[tuple[IntArray, IntArray]] = []
        self._reasons: dict[str, list[IntArray]] = {}
        self._produced: list[IntArray] = []
        self._consumed: list[IntArray] = []
        self.size = 0
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            dims: dict[int, IntArray] = {}
            for axis, length in enumerate(tensor.shape):
                if length > 1:
                    self.axes.append(ParameterAxis(name, axis, self.size, length))
                    dims[axis] = np.arange(self.size, self.size + length)
                    self.size += length
            self._labels[tensor] = Labels(dims)

    def of(self, tensor: torch.Tensor) -> Labels:
        """The tensor's labels; constants have none."""
        found: Labels = self._labels.get(tensor, UNLABELLED)
        return found

    def assign(self, tensor: torch.Tensor, labels: Labels) -> None:
        """Give a tensor its labels; dimensions without any real label are left out."""
        dims = {d: array for d, array in labels.dims.items() if tensor.shape[d] > 1 and (array != NONE).any()}
        self._labels[tensor] = Labels(dims, labels.activation)

    def tie(self, a: IntArray, b: IntArray, where: str) -> IntArray:
        """Tie two label arrays of one shape position by position and return what the positions carry now.

        A channel that meets a position without one is protected: the other tensor's size would not follow.
        """
        both = (a != NONE) & (b != NONE)
        if both.any():
            self._ties.append((a[both], b[both]))
        alone = (a == NONE) ^ (b == NONE)
        if alone.any():
            self.protect(np.maximum(a, b)[alone], f"{where} joins them with values whose number is fixed")
        return np.maximum(a, b)

    def protect(self, labels: IntArray, reason: str) -> None:
        """Channels with these labels must stay, for the reason given."""
        real = labels[labels != NONE]
        if real.size:
            self._reasons.setdefault(reason, []).append(real)

    def protect_all(self, labels: Iterable[Labels], reason: str) -> None:
        """Protect every label of some tensors."""
        for item in labels:
            for array in item.dims.values():
                self.protect(array, reason)

    def produce(self, labels: IntArray) -> None:
        """The parameter axes of these labels compute the channels."""
        self._produced.append(labels)

    def consume(self, labels: IntArray) -> None:
        """The parameter axes of these labels read the channels."""
        self._consumed.append(labels)

    def contract(self, coefficient: int, axes: Iterable[IntArray]) -> None:
        """Record the cost of a convolution or matrix product of the layer running now."""
        if self.counting:
            self.contractions.append(Contraction(self.layer, coefficient, tuple(axes)))

    def classes(self) -> IntArray:
        """For every label, the number of its class of tied labels; shape (labels,)."""
        if self._ties:
            rows = np.concatenate([a for a, _ in self._ties])
            columns = np.concatenate([b for _, b in self._ties])
        else:
            rows = columns = np.zeros(0, dtype=np.int64)
        edges = coo_matrix((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(self.size, self.size))
        _, classes = connected_components(edges, directed=False)
        return np.asarray(classes, dtype=np.int64)

    def reasons(self) -> dict[int, str]:
        """The first reason given for each protected label."""
        found: dict[int, str] = {}
        for reason, arrays in self._reasons.items():
            for label in np.unique(np.concatenate(arrays)).tolist():
                found.setdefault(label, reason)
        return found

    def produced_mask(self) -> NDArray[np.bool_]:
        """Whether each label is of an axis that computes channels; shape (labels,)."""
        return self._mask(self._produced)

    def consumed_mask(self) -> NDArray[np.bool_]:
        """Whether each label is of an axis that reads channels; shape (labels,)."""
        return self._mask(self._consumed)

    def _mask(self, arrays: list[IntArray]) -> NDArray[np.bool_]:
        mask = np.zeros(self.size, dtype=bool)
        for array in arrays:
            mask[array[array != NONE]] = True
        return mask
