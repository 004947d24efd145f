"""Seconds of a model as a sum over its layers: a regression on channels, fitted to profiles of some candidates.

A layer's time depends on how many channels it reads and makes, and not smoothly: libraries compute whole blocks of
channels, and take a faster way for widths that are multiples of some number. So every layer has two linear models of
the same terms (channels and blocks of channels, and their products), one for aligned widths, which are such multiples,
and one for others. Block and multiple are chosen by cross-validation, all coefficients are at least 0, and errors count
relative to the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from automl_prune.costs.polynomial import AxisLength

BLOCKS = (1, 8, 16)
"""Sizes of the blocks of channels that are tried."""

MULTIPLES = (1, 4, 8, 16)
"""Numbers whose multiples may take a faster way."""

TERMS = 7
"""Regressors of a layer, see ``layer_terms``."""

FOLDS = 4
LEAST_OF_A_KIND = 4
"""With fewer aligned (or other) samples of a layer, their model is fitted to all."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or matrix product: the widths it reads and makes, and how many places it computes them at.

    Attributes:
        name: Of its weight.
        inputs: Channels it reads (of its group, in a grouped convolution).
        outputs: Channels it makes.
        places: Times its weight is applied to one input, e.g. height times width of the output.
    """

    name: str
    inputs: AxisLength
    outputs: AxisLength
    places: int


@dataclass(frozen=True, slots=True)
class Sample:
    """A measured model.

    Attributes:
        widths: In the order of the groups.
        seconds: Its latency, end to end.
        layers: Seconds by weight where the layer was profiled; what has no name here counts to the rest.
    """

    widths: tuple[int, ...]
    seconds: float
    layers: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LayerFit:
    """One layer's regression.

    Attributes:
        block: Channels that the library computes at once.
        multiple: Widths that are multiples of it are aligned.
        coefficients: Of ``layer_terms`` for other widths, then for aligned ones, shape (2, TERMS).
    """

    block: int
    multiple: int
    coefficients: tuple[tuple[float, ...], ...]


NOT_PROFILED = LayerFit(1, 1, ((0.0,) * TERMS,) * 2)
"""Of a layer whose time is not known: all of it counts to the rest."""


class LayerChannels:
    """Channels that each layer reads and makes, from the widths of groups.

    Attributes:
        names: Of the layers.
        places: Of the layers, shape (layers, 1).
        fixed: Whether the channels read, and those made, never change, both of shape (layers, 1).
    """

    def __init__(self, groups: tuple[str, ...], layers: tuple[Layer, ...]) -> None:
        self.names = tuple(layer.name for layer in layers)
        self.places = np.array([layer.places for layer in layers], dtype=np.float64)[:, None]
        self._read = _linear(groups, [layer.inputs for layer in layers])
        self._made = _linear(groups, [layer.outputs for layer in layers])
        self.fixed = tuple((slopes == 0).all(axis=1, keepdims=True) for slopes, _ in (self._read, self._made))

    def at(self, widths: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Channels read and made, each of shape (layers, many), for widths of shape (many, groups)."""
        many = np.asarray(widths, dtype=np.float64).T
        read, made = (slopes @ many + constants for slopes, constants in (self._read, self._made))
        return read, made

    def aligned(self, read: Floats, made: Floats, multiple: Floats | int) -> Bools:
        """Whether both ends of each layer are multiples; an end that never changes takes no part."""
        fixed_read, fixed_made = self.fixed
        found: Bools = ((read % multiple == 0) | fixed_read) & ((made % multiple == 0) | fixed_made)
        return found


def _linear(groups: tuple[str, ...], axes: Sequence[AxisLength]) -> tuple[Floats, Floats]:
    """Lengths of axes as linear functions of the groups' widths: slopes (axes, groups), constants (axes, 1)."""
    column = {group: number for number, group in enumerate(groups)}
    slopes = np.zeros((len(axes), len(groups)))
    for row, axis in enumerate(axes):
        for group, count in axis.positions.items():
            slopes[row, column[group]] = count
    return slopes, np.array([float(axis.constant) for axis in axes])[:, None]


def layer_terms(read: Floats, made: Floats, block: int) -> Floats:
    """The regressors of a layer's channels, shape (TERMS, ...)."""
    blocks_read, blocks_made = np.ceil(read / block), np.ceil(made / block)
    products = (read * made, blocks_read * blocks_made, blocks_read * made, read * blocks_made)
    return np.stack([np.ones_like(read), read, made, *products])


def rest_terms(channels: LayerChannels, read: Floats, made: Floats) -> Floats:
    """The regressors of what is no layer (joins, pools, reordering), shape (terms, many)."""
    values = channels.places * made
    unaligned = [~channels.aligned(read, made, multiple) for multiple in MULTIPLES[1:]]
    return np.stack(
        [
            np.ones(made.shape[1]),
            values.sum(axis=0),
            (values * read).sum(axis=0),
            *((values * read * kind).sum(axis=0) for kind in unaligned),
            *((values * kind).sum(axis=0) for kind in unaligned),
            *(kind.sum(axis=0) for kind in unaligned),
        ]
    )


@dataclass(frozen=True)
class LatencyRegression:
    """The regressions of all layers and of the rest, as arrays. Immutable.

    Attributes:
        fits: A regression per layer.
        rest: Coefficients of ``rest_terms``.
        scale: What the sum is multiplied by to give what was measured end to end.
    """

    fits: tuple[LayerFit, ...]
    rest: tuple[float, ...]
    scale: float
    _coefficients: Floats = field(init=False, repr=False, compare=False)
    _blocks: Floats = field(init=False, repr=False, compare=False)
    _multiples: Floats = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        coefficients = np.array([fit.coefficients for fit in self.fits]).reshape(len(self.fits), 2, TERMS)
        object.__setattr__(self, "_coefficients", coefficients.transpose(1, 2, 0)[..., None])
        object.__setattr__(self, "_blocks", np.array([float(fit.block) for fit in self.fits])[:, None])
        object.__setattr__(self, "_multiples", np.array([float(fit.multiple) for fit in self.fits])[:, None])

    def predict(self, channels: LayerChannels, widths: NDArray[np.int64]) -> Floats:
        """Seconds, shape (many,), of widths of shape (many, groups)."""
        read, made = channels.at(widths)
        aligned = channels.aligned(read, made, self._multiples)
        base, per_read, per_made, per_product, per_blocks, per_blocks_read, per_blocks_made = (
            np.where(aligned, for_aligned, for_others)
            for for_others, for_aligned in zip(*self._coefficients, strict=True)
        )
        blocks_read, blocks_made = np.ceil(read / self._blocks), np.ceil(made / self._blocks)
        layers = (  # the sum over ``layer_terms``, with as few products of large arrays as there can be
            base
            + made * (per_made + per_blocks_read * blocks_read)
            + read * (per_read + per_product * made + per_blocks_made * blocks_made)
            + per_blocks * blocks_read * blocks_made
        )
        rest = np.array(self.rest) @ rest_terms(channels, read, made)
        return np.asarray(self.scale * (layers.sum(axis=0) + rest))


def fit_regression(
    channels: LayerChannels, samples: Sequence[Sample], choices: Sequence[tuple[int, int]] | None = None
) -> LatencyRegression:
    """Layers, rest and scale fitted to samples.

    Args:
        channels: Of the layers.
        samples: Measured models.
        choices: Block and multiple of every layer; by default they are cross-validated.
    """
    read, made = channels.at(np.array([sample.widths for sample in samples]))
    seconds = np.array([sample.seconds for sample in samples])
    # a profile has its own overhead and the machine's mood: only its shares count
    profiled = np.array([sum(sample.layers.values()) or sample.seconds for sample in samples])
    fits, explained = [], np.zeros(len(samples))
    for number, name in enumerate(channels.names):
        if any(name not in sample.layers for sample in samples):
            fits.append(NOT_PROFILED)
            continue
        times = np.array([sample.layers[name] for sample in samples]) * seconds / profiled
        mine = _LayerSamples(channels, number, read, made, times)
        fits.append(mine.fit(*(choices[number] if choices is not None else mine.choice())))
        explained += times
    left = np.maximum(seconds - explained, 1e-3 * seconds)
    rest = tuple(_least_squares(rest_terms(channels, read, made), left, seconds).tolist())
    unscaled = LatencyRegression(tuple(fits), rest, 1.0)
    predicted = unscaled.predict(channels, np.array([sample.widths for sample in samples]))
    return LatencyRegression(tuple(fits), rest, float(np.median(seconds / predicted)))


class _LayerSamples:
    """One layer in all samples: its channels, shape (samples,), and its times."""

    def __init__(self, channels: LayerChannels, number: int, read: Floats, made: Floats, times: Floats) -> None:
        self._read, self._made, self._times = read[number], made[number], times
        self._aligned = {multiple: channels.aligned(read, made, multiple)[number] for multiple in MULTIPLES}

    def choice(self) -> tuple[int, int]:
        """Block and multiple of least cross-validated error; of nearly equal ones the simplest."""
        best, least = (1, 1), np.inf
        for block, multiple in product(BLOCKS, MULTIPLES):
            error = self._error(block, multiple)
            if error < 0.99 * least:
                best, least = (block, multiple), error
        return best

    def fit(self, block: int, multiple: int, rows: Bools | None = None) -> LayerFit:
        """The regression of some samples, by default all."""
        rows = np.ones(len(self._times), dtype=bool) if rows is None else rows
        terms, aligned = layer_terms(self._read, self._made, block), self._aligned[multiple]
        coefficients = []
        for kind in (rows & ~aligned, rows & aligned):
            used = kind if kind.sum() >= LEAST_OF_A_KIND else rows
            solution = _least_squares(terms[:, used], self._times[used], self._times[used])
            coefficients.append(tuple(solution.tolist()))
        return LayerFit(block, multiple, tuple(coefficients))

    def _error(self, block: int, multiple: int) -> float:
        """Mean error, relative, of samples that a fit without their fold predicts."""
        folds = np.arange(len(self._times)) % FOLDS
        terms, aligned = layer_terms(self._read, self._made, block), self._aligned[multiple]
        errors = []
        for fold in range(FOLDS):
            held = folds == fold
            others, of_aligned = (
                np.array(half) @ terms[:, held] for half in self.fit(block, multiple, ~held).coefficients
            )
            errors.append(np.where(aligned[held], of_aligned, others) / self._times[held] - 1)
        return float(np.abs(np.concatenate(errors)).mean())


def _least_squares(terms: Floats, times: Floats, relative_to: Floats) -> Floats:
    """Coefficients of at least 0 that fit times best, errors relative to some times."""
    scaled = terms / relative_to
    size = np.linalg.norm(scaled, axis=1)
    size[size == 0] = 1.0
    solution, _ = nnls((scaled / size[:, None]).T, times / relative_to)
    return np.asarray(solution / size)
