"""Latency of any widths without building the model: a regression per layer, fitted to profiles of some candidates.

A layer's time depends on how many channels it reads and makes, and not smoothly: libraries compute whole blocks of
channels, and take a faster way for widths that are multiples of some number. So every layer has two linear models of
the same terms (channels and blocks of channels, and their products), one for widths that are such multiples and one for
others. Block and multiple are chosen by cross-validation, all coefficients are at least 0, and errors count relative to
the time. HALP (Shen et al. 2022, arXiv:2110.10811, section 3.2) tabulates layers instead; a table needs every pair of
widths to be measured.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.stats import spearmanr

from automl_prune.costs.polynomial import AxisLength
from automl_prune.errors import CheckpointError
from automl_prune.files import read_sealed, write_sealed

BLOCKS = (1, 8, 16)
"""Sizes of the blocks of channels that are tried."""

MULTIPLES = (1, 4, 8, 16)
"""Numbers whose multiples may take a faster way."""

FOLDS = 4
HELD_OUT = 4
"""Every so many samples one is kept apart, to judge the prediction by."""

LEAST_SAMPLES = 12
FORMAT = 2

Floats = NDArray[np.float64]


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
class PredictionError:
    """How far predictions were from measurements that the fit had not seen.

    Attributes:
        mape: Mean absolute error relative to the measurement.
        spearman: Rank correlation.
        samples: How many were held out.
    """

    mape: float
    spearman: float
    samples: int

    @classmethod
    def of(cls, predicted: Sequence[float] | Floats, measured: Sequence[float] | Floats) -> PredictionError:
        """The error of some predictions, at least 2 that are not all equal."""
        p, m = np.asarray(predicted, dtype=np.float64), np.asarray(measured, dtype=np.float64)
        same = np.ptp(p) == 0 or np.ptp(m) == 0
        rank = float("nan") if same else float(spearmanr(p, m).statistic)
        return cls(float(np.abs(p / m - 1).mean()), rank, len(m))

    def describe(self) -> str:
        """A clause for people."""
        return (
            f"mean error {self.mape:.1%}, rank correlation {self.spearman:.3f} on {self.samples} candidates it had not "
            "seen"
        )


@dataclass(frozen=True, slots=True)
class _Fit:
    """One layer's model: its choices, and coefficients for multiples and for others, shape (2, TERMS)."""

    block: int
    multiple: int
    coefficients: tuple[tuple[float, ...], ...]


TERMS = 7
_UNKNOWN = _Fit(1, 1, ((0.0,) * TERMS,) * 2)
"""Of a layer without a profile."""


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicted seconds as a function of the group widths; not monotone. Make it with ``fit``. Immutable.

    Attributes:
        groups: Names of the variables, in the order of the vectors that ``evaluate`` takes.
        layers: What is summed.
        fits: A model per layer.
        rest: Coefficients of what is no layer (joins, pools, reordering), see ``_rest_terms``.
        scale: What the sum is multiplied by to give what was measured end to end.
        dense: Measured seconds of the dense model.
        error: On candidates that a fit without them had not seen.
        known: Measured seconds by widths, of models that were measured to see whether a bound can be reached.
    """

    groups: tuple[str, ...]
    layers: tuple[Layer, ...]
    fits: tuple[_Fit, ...]
    rest: tuple[float, ...]
    scale: float
    dense: float
    error: PredictionError
    known: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    _model: _Model = field(init=False, repr=False, compare=False)
    _lengths: _Lengths = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_model", _Model(self.fits, self.rest, self.scale))
        object.__setattr__(self, "_lengths", _Lengths(self.groups, self.layers))

    @classmethod
    def fit(
        cls, groups: Sequence[str], layers: Sequence[Layer], samples: Sequence[Sample], *, dense: float
    ) -> LatencyPredictor:
        """Fit layers and rest to measured models.

        Args:
            groups: Names of the variables.
            layers: All whose time depends on widths; one that no sample has a time of counts to the rest.
            samples: At least ``LEAST_SAMPLES``, of diverse widths.
            dense: Measured seconds of the dense model.

        Raises:
            ValueError: There are too few samples.
        """
        if len(samples) < LEAST_SAMPLES:
            raise ValueError(f"a latency predictor needs at least {LEAST_SAMPLES} samples, got {len(samples)}")
        whole = _Lengths(tuple(groups), tuple(layers))
        held = np.arange(len(samples)) % HELD_OUT == HELD_OUT - 1
        trial = _fitted(whole, [s for s, apart in zip(samples, held, strict=True) if not apart], None)
        unseen = [s for s, apart in zip(samples, held, strict=True) if apart]
        predicted = trial.predict(whole, np.array([s.widths for s in unseen]))
        error = PredictionError.of(predicted, [s.seconds for s in unseen])
        final = _fitted(whole, samples, [(fit.block, fit.multiple) for fit in trial.fits])
        return cls(tuple(groups), tuple(layers), final.fits, final.rest, final.scale, dense, error)

    @property
    def monotone(self) -> bool:
        """False: a multiple of the block may be faster than fewer channels."""
        return False

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        """Predicted seconds for a vector of widths, shape (groups,), in the order of ``groups``."""
        return float(self.evaluate_all(np.asarray(widths, dtype=np.int64)[None])[0])

    def evaluate_all(self, widths: NDArray[np.int64]) -> Floats:
        """Predicted seconds for many vectors of widths, shape (many, groups), as shape (many,)."""
        return self._model.predict(self._lengths, np.asarray(widths, dtype=np.int64))

    def at(self, widths: Mapping[str, int]) -> float:
        """Predicted seconds for widths by group name; every group must be named."""
        return self.evaluate([widths[group] for group in self.groups])

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that identify it."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary; ``from_json`` inverts it."""
        return {
            "groups": list(self.groups),
            "layers": [
                {**asdict(layer), "inputs": _axis(layer.inputs), "outputs": _axis(layer.outputs)}
                for layer in self.layers
            ],
            "fits": [asdict(fit) for fit in self.fits],
            "rest": list(self.rest),
            "scale": self.scale,
            "dense": self.dense,
            "error": asdict(self.error),
            "known": [[list(widths), seconds] for widths, seconds in self.known.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> LatencyPredictor:
        """Rebuild a predictor; missing or malformed entries raise ``ValueError``."""
        try:
            return cls(
                groups=tuple(value["groups"]),
                layers=tuple(
                    Layer(row["name"], AxisLength(**row["inputs"]), AxisLength(**row["outputs"]), row["places"])
                    for row in value["layers"]
                ),
                fits=tuple(
                    _Fit(row["block"], row["multiple"], tuple(tuple(half) for half in row["coefficients"]))
                    for row in value["fits"]
                ),
                rest=tuple(value["rest"]),
                scale=float(value["scale"]),
                dense=float(value["dense"]),
                error=PredictionError(**value["error"]),
                known={tuple(widths): float(seconds) for widths, seconds in value["known"]},
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a latency predictor: {error!r}") from error


def _axis(length: AxisLength) -> dict[str, Any]:
    return {"constant": length.constant, "positions": dict(length.positions)}


def save_predictor(path: Path, predictor: LatencyPredictor, identity: Mapping[str, Any]) -> None:
    """Write a predictor with what it is of (model, fingerprint), atomically."""
    write_sealed(path, {"format": FORMAT, "identity": dict(identity), "predictor": predictor.to_json()})


def replace_predictor(path: Path, predictor: LatencyPredictor) -> None:
    """Write a predictor in place of the one a file holds, of the same model and machine, atomically.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    write_sealed(path, {**read_sealed(path), "predictor": predictor.to_json()})


def load_predictor(path: Path, identity: Mapping[str, Any]) -> LatencyPredictor | None:
    """The predictor a file holds; None when there is none, it is damaged, or of something else."""
    try:
        value = read_sealed(path) if path.is_file() else {}
        if value.get("format") != FORMAT or value.get("identity") != dict(identity):
            return None
        return LatencyPredictor.from_json(value["predictor"])
    except (CheckpointError, ValueError, KeyError, AttributeError):
        return None


class _Lengths:
    """Channels that each layer reads and makes, from widths."""

    def __init__(self, groups: tuple[str, ...], layers: tuple[Layer, ...]) -> None:
        column = {group: number for number, group in enumerate(groups)}
        self.places = np.array([layer.places for layer in layers], dtype=np.float64)[:, None]
        self.names = tuple(layer.name for layer in layers)
        self._ends = []
        for axes in ([layer.inputs for layer in layers], [layer.outputs for layer in layers]):
            slopes = np.zeros((len(layers), len(groups)))
            for row, axis in enumerate(axes):
                for group, count in axis.positions.items():
                    slopes[row, column[group]] = count
            self._ends.append((slopes, np.array([float(axis.constant) for axis in axes])[:, None]))
        # what never changes takes no part in which way is taken
        self.fixed = [(slopes == 0).all(axis=1, keepdims=True) for slopes, _ in self._ends]

    def at(self, widths: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Channels read and made, each of shape (layers, many)."""
        many = np.asarray(widths, dtype=np.float64).T
        (a, b), (c, d) = self._ends
        return a @ many + b, c @ many + d


def _terms(inputs: Floats, outputs: Floats, block: Floats | int) -> Floats:
    """The regressors of channels, shape (TERMS, ...)."""
    read, made = np.ceil(inputs / block), np.ceil(outputs / block)
    ones = np.ones_like(inputs)
    return np.stack([ones, inputs, outputs, inputs * outputs, read * made, read * outputs, inputs * made])


def _even(lengths: _Lengths, inputs: Floats, outputs: Floats, multiple: Floats | int) -> NDArray[np.bool_]:
    """Whether both ends of each layer are multiples, or never change."""
    fixed_inputs, fixed_outputs = lengths.fixed
    even: NDArray[np.bool_] = ((inputs % multiple == 0) | fixed_inputs) & ((outputs % multiple == 0) | fixed_outputs)
    return even


@dataclass(frozen=True)
class _Model:
    """Layer models compiled to arrays."""

    fits: tuple[_Fit, ...]
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

    def predict(self, lengths: _Lengths, widths: NDArray[np.int64]) -> Floats:
        """Seconds, shape (many,)."""
        inputs, outputs = lengths.at(widths)
        even = _even(lengths, inputs, outputs, self._multiples)
        base, read, made, both, blocks, read_blocks, made_blocks = (
            np.where(even, even_way, uneven_way) for uneven_way, even_way in zip(*self._coefficients, strict=True)
        )
        blocks_read, blocks_made = np.ceil(inputs / self._blocks), np.ceil(outputs / self._blocks)
        layers = (
            base
            + outputs * (made + read_blocks * blocks_read)
            + inputs * (read + both * outputs + made_blocks * blocks_made)
            + blocks * blocks_read * blocks_made
        )
        rest = np.array(self.rest) @ _rest_terms(lengths, inputs, outputs)
        return np.asarray(self.scale * (layers.sum(axis=0) + rest))


def _rest_terms(lengths: _Lengths, inputs: Floats, outputs: Floats) -> Floats:
    """The regressors of what is no layer, shape (terms, many)."""
    made = lengths.places * outputs
    kinds = [~_even(lengths, inputs, outputs, multiple) for multiple in MULTIPLES[1:]]
    uneven = [(made * kind).sum(axis=0) for kind in kinds]
    products = [(made * inputs).sum(axis=0), *((made * inputs * kind).sum(axis=0) for kind in kinds)]
    return np.stack(
        [np.ones(made.shape[1]), made.sum(axis=0), *products, *uneven, *(kind.sum(axis=0) for kind in kinds)]
    )


def _fitted(lengths: _Lengths, samples: Sequence[Sample], choices: Sequence[tuple[int, int]] | None) -> _Model:
    """Layers, rest and scale fitted to samples; ``choices`` of block and multiple by layer, or cross-validated."""
    widths = np.array([sample.widths for sample in samples])
    inputs, outputs = lengths.at(widths)
    seconds = np.array([sample.seconds for sample in samples])
    # a profile has its own overhead and the machine's mood: only its shares count
    profiled = np.array([sum(sample.layers.values()) or sample.seconds for sample in samples])
    stretch = seconds / profiled
    fits, known = [], np.zeros(len(samples))
    for number, name in enumerate(lengths.names):
        if any(name not in sample.layers for sample in samples):
            fits.append(_UNKNOWN)
            continue
        times = np.array([sample.layers[name] for sample in samples]) * stretch
        view = _View(lengths, number, inputs, outputs)
        choice = choices[number] if choices is not None else view.choose(times)
        fits.append(_Fit(*choice, view.solve(times, *choice)))
        known += times
    rest = _solve(_rest_terms(lengths, inputs, outputs), np.maximum(seconds - known, 1e-3 * seconds), seconds)
    raw = _Model(tuple(fits), tuple(rest.tolist()), 1.0).predict(lengths, widths)
    return _Model(tuple(fits), tuple(rest.tolist()), float(np.median(seconds / raw)))


class _View:
    """One layer of the samples."""

    def __init__(self, lengths: _Lengths, number: int, inputs: Floats, outputs: Floats) -> None:
        self._inputs, self._outputs = inputs[number], outputs[number]
        fixed = [bool(end[number, 0]) for end in lengths.fixed]
        self._ends = [end for end, never in zip((self._inputs, self._outputs), fixed, strict=True) if not never]

    def _even(self, multiple: int) -> NDArray[np.bool_]:
        even = np.ones(len(self._inputs), dtype=bool)
        for end in self._ends:
            even &= end % multiple == 0
        return even

    def choose(self, times: Floats) -> tuple[int, int]:
        """Block and multiple of least cross-validated error; of nearly equal ones the simplest."""
        folds = np.arange(len(times)) % FOLDS
        best, least = (1, 1), np.inf
        for block, multiple in product(BLOCKS, MULTIPLES):
            errors = np.concatenate(
                [
                    self._predicted(self.solve(times, block, multiple, folds != fold), block, multiple, folds == fold)
                    / times[folds == fold]
                    - 1
                    for fold in range(FOLDS)
                ]
            )
            error = float(np.abs(errors).mean())
            if error < 0.99 * least:
                best, least = (block, multiple), error
        return best

    def solve(
        self, times: Floats, block: int, multiple: int, rows: NDArray[np.bool_] | None = None
    ) -> tuple[tuple[float, ...], ...]:
        """Coefficients for widths that are no multiples, and for multiples; of all samples where a kind has too few."""
        rows = np.ones(len(times), dtype=bool) if rows is None else rows
        terms, even = _terms(self._inputs, self._outputs, block), self._even(multiple)
        found = []
        for kind in (rows & ~even, rows & even):
            used = kind if kind.sum() >= 4 else rows
            found.append(tuple(_solve(terms[:, used], times[used], times[used]).tolist()))
        return tuple(found)

    def _predicted(
        self, coefficients: tuple[tuple[float, ...], ...], block: int, multiple: int, rows: NDArray[np.bool_]
    ) -> Floats:
        uneven, even = (
            np.array(half) @ _terms(self._inputs[rows], self._outputs[rows], block) for half in coefficients
        )
        return np.where(self._even(multiple)[rows], even, uneven)


def _solve(terms: Floats, times: Floats, relative_to: Floats) -> Floats:
    """Coefficients of at least 0 that fit times best, errors relative to some times."""
    scaled = terms / relative_to
    size = np.linalg.norm(scaled, axis=1)
    size[size == 0] = 1.0
    solution, _ = nnls((scaled / size[:, None]).T, times / relative_to)
    return np.asarray(solution / size)
