"""A cost: a number that knows what it is, its unit and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

from automl_prune.registry import Registry


@dataclass(frozen=True, slots=True)
class CostMetric:
    """A kind of cost a budget can bound.

    Attributes:
        name: Key in ``budget:`` and column in ``front.csv``.
        unit: Unit of absolute values, e.g. ``"MACs"``.
        title: Words for tables and axes.
    """

    name: str
    unit: str
    title: str


@dataclass(frozen=True, slots=True)
class Cost:
    """One value of a metric.

    Attributes:
        metric: Name of a registered ``CostMetric``.
        value: In the metric's unit.
        dense: The same cost of the dense model.
    """

    metric: str
    value: float
    dense: float

    @property
    def ratio(self) -> float:
        """Value as a fraction of the dense model."""
        return self.value / self.dense


cost_metrics: Registry[CostMetric] = Registry("cost_metrics")
cost_metrics.register("macs")(CostMetric("macs", "MACs", "Multiply-accumulates per input"))
cost_metrics.register("params")(CostMetric("params", "parameters", "Parameters"))
