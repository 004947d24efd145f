"""Latency of any widths without building the model: its regression, its error, and the file that keeps both.

HALP (Shen et al. 2022, arXiv:2110.10811, section 3.2) tabulates layers; a table needs every pair of widths to be
measured, a regression some dozens of models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from automl_prune.costs.layer_regression import (
    Floats,
    LatencyRegression,
    Layer,
    LayerChannels,
    LayerFit,
    Sample,
    fit_regression,
)
from automl_prune.costs.polynomial import AxisLength
from automl_prune.errors import CheckpointError
from automl_prune.files import read_sealed, write_sealed

HELD_OUT = 4
"""Every so many samples one is kept apart, to judge the prediction by."""

LEAST_SAMPLES = 12
FORMAT = 2


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


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicted seconds as a function of the group widths; not monotone. Make it with ``fit``. Immutable.

    Attributes:
        groups: Names of the variables, in the order of the vectors that ``evaluate`` takes.
        layers: What is summed.
        regression: Fitted to measured models.
        dense: Measured seconds of the dense model.
        error: On candidates that a fit without them had not seen.
        known: Measured seconds by widths, of models that were measured to see whether a bound can be reached.
    """

    groups: tuple[str, ...]
    layers: tuple[Layer, ...]
    regression: LatencyRegression
    dense: float
    error: PredictionError
    known: Mapping[tuple[int, ...], float] = field(default_factory=dict)
    _channels: LayerChannels = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_channels", LayerChannels(self.groups, self.layers))

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
        channels = LayerChannels(tuple(groups), tuple(layers))
        held = [number % HELD_OUT == HELD_OUT - 1 for number in range(len(samples))]
        seen, unseen = ([s for s, apart in zip(samples, held, strict=True) if apart == kind] for kind in (False, True))
        trial = fit_regression(channels, seen)
        predicted = trial.predict(channels, np.array([sample.widths for sample in unseen]))
        error = PredictionError.of(predicted, [sample.seconds for sample in unseen])
        final = fit_regression(channels, samples, [(fit.block, fit.multiple) for fit in trial.fits])
        return cls(tuple(groups), tuple(layers), final, dense, error)

    @property
    def monotone(self) -> bool:
        """False: a multiple of the block may be faster than fewer channels."""
        return False

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        """Predicted seconds for a vector of widths, shape (groups,), in the order of ``groups``."""
        return float(self.evaluate_all(np.asarray(widths, dtype=np.int64)[None])[0])

    def evaluate_all(self, widths: NDArray[np.int64]) -> Floats:
        """Predicted seconds for many vectors of widths, shape (many, groups), as shape (many,)."""
        return self.regression.predict(self._channels, np.asarray(widths, dtype=np.int64))

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
            "fits": [asdict(fit) for fit in self.regression.fits],
            "rest": list(self.regression.rest),
            "scale": self.regression.scale,
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
                regression=LatencyRegression(
                    fits=tuple(
                        LayerFit(row["block"], row["multiple"], tuple(tuple(half) for half in row["coefficients"]))
                        for row in value["fits"]
                    ),
                    rest=tuple(value["rest"]),
                    scale=float(value["scale"]),
                ),
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
