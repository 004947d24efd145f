"""Where every channel comes from: integer labels that travel beside tensors, and what is learnt while they do.

Every axis of every parameter and buffer starts with fresh labels, one per position. A tensor then knows, for each
of its dimensions, which label each position carries (nothing for batch and space). Operators move labels as they
move elements (``rules.py``); where labels meet they are tied, and tied labels live and die together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from automl_prune.costs.memory import Span

IntArray = NDArray[np.int64]
NONE = -1
"""The label of a position that belongs to no channel (padding, the model's input). Channels count from 0."""
FREE = -2
"""The label of positions made from a size alone (``zeros``, a broadcast): they are taken to be as many as what they
meet, and proof finds where they are not."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one tensor.

    Attributes:
        dims: For each labelled dimension, one label per position, shape (size of the dimension,).
        activation: Whether the tensor depends on the model's input or on buffers; False for parameters and what is
            computed from parameters alone.
        made: Whether the forward pass made it from sizes alone (``zeros``, ``arange``), so that the dimensions
            without labels are free.
    """

    dims: Mapping[int, IntArray] = field(default_factory=dict)
    activation: bool = False
    made: bool = False


UNLABELLED = Labels()


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """A tensor that took memory while the model ran: bytes per element, shape, labels, and bytes taken in all."""

    itemsize: int
    shape: tuple[int, ...]
    labels: Labels
    nbytes: int


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


@dataclass(frozen=True, slots=True)
class SizeClaim:
    """Sizes an operator was called with that must follow some channels, in case a module attribute holds them.

    Attributes:
        layer: Qualified name of the module that called the operator.
        labels: For each size, one label per unit of it; NONE for units that belong to no channel.
    """

    layer: str
    labels: tuple[IntArray, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers given."""
        return tuple(len(labels) for labels in self.labels)


class Provenance:
    """Labels, ties and protections gathered while a model runs. Grows; read it when the run is over."""

    def __init__(self, model: nn.Module) -> None:
        self.axes: list[ParameterAxis] = []
        self.contractions: list[Contraction] = []
        self.layers: list[str] = [""]
        """Names of the modules running now, the innermost last."""
        self.counting = True
        """Whether contractions are recorded (not again when the model runs a second time)."""
        self.memory: tuple[Span[HeldTensor], ...] = ()
        """What took memory while the model ran in evaluation mode, and when."""
        self.claims: list[SizeClaim] = []
        self.spanned: list[IntArray] = []
        """Channels the present operator looks across; whoever runs the model empties it before each operator."""
        self._mixed: dict[str, list[IntArray]] = {}
        self._labels: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._ties: list[tuple[IntArray, IntArray]] = []
        self._reasons: dict[str, list[IntArray]] = {}
        self._produced: list[IntArray] = []
        self._consumed: list[IntArray] = []
        self.size = 0
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            learnt = isinstance(tensor, nn.Parameter)
            dims: dict[int, IntArray] = {}
            for axis, length in enumerate(tensor.shape):
                if length > 1:
                    self.axes.append(ParameterAxis(name, axis, self.size, length))
                    dims[axis] = np.arange(self.size, self.size + length)
                    self.size += length
            self._labels[tensor] = Labels(dims, activation=not learnt)
        self._spanned = np.zeros(self.size, dtype=bool)

    @property
    def layer(self) -> str:
        """Name of the module running now."""
        return self.layers[-1]

    def of(self, tensor: torch.Tensor) -> Labels:
        """The tensor's labels; constants have none."""
        found: Labels = self._labels.get(tensor, UNLABELLED)
        return found

    def on(self, tensor: torch.Tensor, dim: int) -> IntArray:
        """The labels along one dimension, shape (size of it,); NONE or FREE where there are none."""
        labels = self.of(tensor)
        found = labels.dims.get(dim)
        if found is None:
            return np.full(tensor.shape[dim], FREE if labels.made else NONE, dtype=np.int64)
        return found

    def ends_axis(self, labels: IntArray, end: int) -> bool:
        """Whether the labels before and after a position come from different parameter axes."""
        around = labels[end - 1 : end + 1]
        axes = np.searchsorted([axis.start for axis in self.axes], around, side="right")
        return bool((around < 0).any() or axes[0] != axes[1])

    def tie_all(self, arrays: Iterable[IntArray], where: str) -> IntArray:
        """``tie`` for several arrays of one shape."""
        first, *rest = arrays
        for array in rest:
            first = self.tie(first, array, where)
        return first

    def tie_parts(self, array: IntArray, parts: int, where: str) -> None:
        """Equal parts stay equally wide: the labels at equal positions of all parts are tied."""
        if parts > 1 and (array >= 0).any():
            self.tie_all(array.reshape(parts, -1), where)

    def assign(self, tensor: torch.Tensor, labels: Labels) -> None:
        """Give a tensor its labels; dimensions without any real label are left out."""
        dims = {d: array for d, array in labels.dims.items() if tensor.shape[d] > 1 and (array != NONE).any()}
        self._labels[tensor] = Labels(dims, labels.activation, labels.made)

    def tie(self, a: IntArray, b: IntArray, where: str) -> IntArray:
        """Tie two label arrays of one shape position by position and return what the positions carry now.

        A channel that meets a position without one is protected: the other tensor's size would not follow.
        """
        both = (a >= 0) & (b >= 0)
        if both.any():
            self._ties.append((a[both], b[both]))
        alone = (np.maximum(a, b) >= 0) & (np.minimum(a, b) == NONE)
        if alone.any():
            self.protect(np.maximum(a, b)[alone], f"{where} joins them with values whose number is fixed")
        return np.maximum(a, b)

    def protect(self, labels: IntArray, reason: str) -> None:
        """Channels with these labels must stay, for the reason given; the line of the user's code is added to it."""
        real = labels[labels >= 0]
        if real.size:
            self._reasons.setdefault(f"{self._where()}{reason}{calling_line()}", []).append(real)

    def protect_all(self, labels: Iterable[Labels], reason: str) -> None:
        """Protect every label of some tensors."""
        for item in labels:
            for array in item.dims.values():
                self.protect(array, reason)

    def _where(self) -> str:
        return f"in {self.layer}: " if self.layer else ""

    def span(self, labels: IntArray, operator: str, *, exact: bool = False) -> None:
        """The present operator computes something from all channels with these labels together.

        Args:
            labels: The channels it looks across.
            operator: Its name, for people.
            exact: Whether a removed channel changes nothing for the others once it is zero (a sum of products),
                in contrast to a norm or a mean, which see how many there are.
        """
        real = labels[labels >= 0]
        if real.size:
            self.spanned.append(real)
            self._spanned[real] = True
            if not exact:
                self._mixed.setdefault(operator, []).append(real)

    def mixers(self) -> dict[int, set[str]]:
        """For every label that some operator mixes with others (see ``span``), the operators' names."""
        found: dict[int, set[str]] = {}
        for operator, arrays in self._mixed.items():
            for label in np.unique(np.concatenate(arrays)).tolist():
                found.setdefault(label, set()).add(operator)
        return found

    def claim(self, *labels: IntArray) -> None:
        """An operator was called with a size, or a list of them, that must follow channels (see ``SizeClaim``)."""
        if self.counting and any((array >= 0).any() for array in labels):
            self.claims.append(SizeClaim(self.layer, labels))

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

    def spanned_mask(self) -> NDArray[np.bool_]:
        """Whether some operator looks across the channels of each label; shape (labels,)."""
        return self._spanned

    def is_spanned(self, labels: IntArray) -> bool:
        """Whether an operator has looked across some of these channels."""
        return bool(self._spanned[labels[labels >= 0]].any())

    def _mask(self, arrays: list[IntArray]) -> NDArray[np.bool_]:
        mask = np.zeros(self.size, dtype=bool)
        for array in arrays:
            mask[array[array >= 0]] = True
        return mask


_TORCH, _HERE = str(Path(torch.__file__).parent), str(Path(__file__).parent)


def calling_line() -> str:
    """`` (file.py:12)``: the innermost line of the user's code that led to the present operator; empty if none did."""
    files: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_HERE):
        frame = frame.f_back
    while frame is not None and not frame.f_code.co_filename.startswith(_HERE):
        files.append((frame.f_code.co_filename, frame.f_lineno))
        frame = frame.f_back
    if frame is None:  # what called the tracer, not what it runs
        return ""
    return next((f" ({short_path(f)}:{line})" for f, line in files if not is_framework(f)), "")


def is_framework(file: str) -> bool:
    """Whether a file is torch's or this folder's, so that its lines tell a user nothing."""
    return file.startswith((_TORCH, _HERE, "<"))


def short_path(file: str) -> str:
    """A file with its folder, for messages."""
    return "/".join(Path(file).parts[-2:])
