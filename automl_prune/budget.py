"""What a pruned model may cost at most: absolute or as a fraction of the dense model, always hard."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType

from automl_prune.costs.base import CostMetric, cost_metrics
from automl_prune.errors import BudgetError
from automl_prune.registry import nearest

_NUMBER = re.compile(r"([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+)\s*(%|[a-zA-Zµ]*)")
_FRACTION = "a fraction of the dense model in (0, 1] such as 0.5 or '50%'"
_FLOPS_PER_MAC = 2


@dataclass(frozen=True, slots=True)
class Bound:
    """An upper bound on one cost.

    Attributes:
        metric: Name of a registered ``CostMetric``.
        value: A fraction of the dense model in (0, 1] when ``relative``, else in the metric's unit.
        relative: Which of the two.
        given: How the user wrote it, e.g. ``"flops=1.2G"``.
    """

    metric: str
    value: float
    relative: bool
    given: str

    def limit(self, dense: float) -> float:
        """The bound in the metric's unit, for a dense model that costs ``dense``."""
        return self.value * dense if self.relative else self.value


@dataclass(frozen=True, slots=True, init=False)
class Budget:
    """Upper bounds on costs, in the order given; the first is the cost axis of the front. Immutable.

    A number in (0, 1] is a fraction of the dense model; one with a suffix is absolute: k, M, G, T for ``macs`` and
    ``params``; s, ms, us for ``latency``; B, kB, MB, GB, KiB, MiB, GiB for ``memory`` and ``size``. A number above
    100 without one is absolute where the unit is a count. ``flops`` is understood as MACs: an absolute value is
    halved (1 MAC = 2 FLOPs), a fraction is the same fraction.

    >>> Budget(macs=0.5, params="300k").limits({"macs": 1000, "params": 1e6})
    {'macs': 500.0, 'params': 300000.0}

    Raises:
        BudgetError: For an unknown metric, no bound at all, or a value that is no positive number.
    """

    bounds: Mapping[str, Bound]

    def __init__(self, **values: float | str | None) -> None:
        bounds: dict[str, Bound] = {}
        for name, value in values.items():
            if value is None:
                continue
            bound = _bound(name, value)
            if bound.metric in bounds:
                raise BudgetError(
                    f"budget {bounds[bound.metric].given} and {bound.given} bound the same cost; keep one"
                )
            bounds[bound.metric] = bound
        if not bounds:
            raise BudgetError(f"the budget is empty; give at least one bound: macs = {_expected('macs')}")
        object.__setattr__(self, "bounds", MappingProxyType(bounds))

    def __hash__(self) -> int:
        return hash(tuple(self.bounds.items()))

    @classmethod
    def parse(cls, values: object) -> Budget:
        """The budget of a configuration's ``budget`` section: numbers or strings by metric name."""
        if not isinstance(values, Mapping) or not all(isinstance(name, str) for name in values):
            raise BudgetError(f"budget {values!r} is not a mapping; write for example `budget: {{macs: 0.5}}`")
        return cls(**values)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the bounded metrics, in order."""
        return tuple(self.bounds)

    def limits(self, dense_costs: Mapping[str, float]) -> dict[str, float]:
        """Absolute upper bounds by metric, in the order given.

        Args:
            dense_costs: Costs of the dense model; one that is bounded but missing raises ``BudgetError``.
        """
        return {bound.metric: bound.limit(dense) for bound, dense in self._with_dense(dense_costs)}

    def describe(self, dense_costs: Mapping[str, float]) -> str:
        """One line per bound for people: absolute, relative to the dense model, and what was converted."""
        return "\n".join(_describe(bound, dense) for bound, dense in self._with_dense(dense_costs))

    def _with_dense(self, dense_costs: Mapping[str, float]) -> Iterator[tuple[Bound, float]]:
        for metric, bound in self.bounds.items():
            if metric not in dense_costs:
                raise BudgetError(
                    f"budget {bound.given}: no {metric} of the dense model; {nearest(metric, dense_costs)}"
                )
            yield bound, dense_costs[metric]


def _bound(name: str, value: object) -> Bound:
    metric = "macs" if name == "flops" else name
    if metric not in cost_metrics:
        raise BudgetError(f"budget: unknown metric {name!r}; {nearest(name, (*cost_metrics, 'flops'))}")
    number, relative = _number(name, value, cost_metrics[metric])
    if name == "flops" and not relative:
        number /= _FLOPS_PER_MAC
    return Bound(metric, number, relative, f"{name}={value}")


def _expected(metric: str) -> str:
    """What a bound on a metric may look like."""
    known = cost_metrics[metric]
    return f"{_FRACTION}, or an absolute value such as '{known.example}' (suffixes {', '.join(known.suffixes)})"


def _number(name: str, value: object, metric: CostMetric) -> tuple[float, bool]:
    """The value as a positive finite number in the metric's unit or as a fraction, and whether it is a fraction."""
    given, expected = f"budget {name}={value!r}", _expected(metric.name)
    number, suffix = _split(value)
    if suffix not in ("", "%", *metric.suffixes):
        raise BudgetError(f"{given} has an unknown suffix {suffix!r}; give {expected}")
    number = number / 100 if suffix == "%" else number * metric.suffixes.get(suffix, 1.0)
    if not (math.isfinite(number) and number > 0):
        raise BudgetError(f"{given} is not a positive number; give {expected}")
    if suffix == "%" and number > 1:
        raise BudgetError(f"{given} is more than the dense model; give at most '100%'")
    if not suffix and number > 1 and not metric.counted:
        raise BudgetError(f"{given} has no unit; give {expected}")
    if not suffix and 1 < number <= 100:
        raise BudgetError(f"{given} is less than any model costs, and no fraction; give {expected}")
    return number, suffix == "%" or (not suffix and number <= 1)


def _split(value: object) -> tuple[float, str]:
    """A number and what follows it; NaN for what is no number."""
    if isinstance(value, str):
        match = _NUMBER.fullmatch(value.strip())
        return (float(match[1]), match[2]) if match is not None else (math.nan, "")
    if isinstance(value, bool) or not isinstance(value, Real):
        return math.nan, ""
    return float(value), ""


def _describe(bound: Bound, dense: float) -> str:
    limit, show = bound.limit(dense), cost_metrics[bound.metric].show
    text = f"{bound.metric} <= {show(limit)}, {limit / dense:.1%} of the dense model's {show(dense)}"
    if bound.given.startswith("flops="):
        how = "the same fraction of FLOPs" if bound.relative else "1 MAC = 2 FLOPs, so half of it"
        text += f" (from {bound.given}: {how})"
    if limit >= dense:
        text += "; the dense model meets it already"
    return text
