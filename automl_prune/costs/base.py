"""A cost: a number that knows what it is, its unit and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from automl_prune.registry import Registry

_COUNTS = MappingProxyType({"k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12})
_SECONDS = MappingProxyType({"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6})
_BYTES = MappingProxyType(
    {"B": 1.0, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
)


@dataclass(frozen=True, slots=True)
class CostMetric:
    """A kind of cost a budget can bound.

    Attributes:
        name: Key in ``budget:`` and column in ``front.csv``.
        unit: Unit of absolute values, e.g. ``"MACs"``.
        title: Words for tables and axes.
        suffixes: What may follow an absolute value in a budget, and how many units it is.
        shown: Suffixes values are printed with, largest first, space included.
        example: An absolute value, as a budget writes it.
        counted: Whether the unit is a thing one counts, so that a number above 1 needs no suffix.
    """

    name: str
    unit: str
    title: str
    suffixes: Mapping[str, float] = field(default_factory=lambda: _COUNTS, hash=False)
    shown: tuple[tuple[str, float], ...] = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0))
    example: str = "20M"
    counted: bool = True

    def show(self, value: float) -> str:
        """The value for people, four significant digits in the unit they would choose, e.g. ``20.35M MACs``."""
        suffix, factor = next((entry for entry in self.shown if abs(value) >= entry[1]), self.shown[-1])
        text = f"{value / factor:.4g}{suffix}"
        return f"{text} {self.unit}" if self.counted else text


@dataclass(frozen=True, slots=True)
class Cost:
    """One value of a metric.

    Attributes:
        metric: Name of a registered ``CostMetric``.
        value: In the metric's unit.
        dense: The same cost of the dense model.
        interval: Ends of the 95 % interval of a measured value; None for an exact one.
        noisy: Why a measured value is not to be relied on; None when it is.
        predicted: What was expected before it was measured; None when it was not measured.
    """

    metric: str
    value: float
    dense: float
    interval: tuple[float, float] | None = None
    noisy: str | None = None
    predicted: float | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cost:
        """Rebuild a cost from its fields; unknown or missing ones raise ``TypeError``."""
        interval = value.get("interval")
        return cls(**{**value, "interval": tuple(interval) if interval is not None else None})

    @property
    def ratio(self) -> float:
        """Value as a fraction of the dense model."""
        return self.value / self.dense


class CostModel(Protocol):
    """A cost as a function of the group widths, known or predicted before a model is built."""

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the variables, in the order of the vectors that ``evaluate`` takes."""
        ...

    @property
    def monotone(self) -> bool:
        """Whether it never falls when a width grows."""
        ...

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> float:
        """The cost of a vector of widths, shape (groups,), in the metric's unit."""
        ...

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[Any]:
        """The costs of many vectors of widths, shape (many, groups), as shape (many,)."""
        ...

    def at(self, widths: Mapping[str, int]) -> float:
        """The cost of widths by group name; every group must be named."""
        ...


_TIMES = ((" s", 1.0), (" ms", 1e-3), (" µs", 1e-6))
_SIZES = ((" GB", 1e9), (" MB", 1e6), (" kB", 1e3), (" B", 1.0))

cost_metrics: Registry[CostMetric] = Registry("cost_metrics")
for _metric in (
    CostMetric("macs", "MACs", "Multiply-accumulates per input"),
    CostMetric("params", "parameters", "Parameters"),
    CostMetric("memory", "bytes", "Peak memory of one input with weights", _BYTES, _SIZES, "2MB", counted=False),
    CostMetric("size", "bytes", "Size of the ONNX file", _BYTES, _SIZES, "500kB", counted=False),
    CostMetric("latency", "s", "Latency of one batch", _SECONDS, _TIMES, "4ms", counted=False),
):
    cost_metrics.register(_metric.name)(_metric)
