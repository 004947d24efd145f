"""What a pruned model costs: exact functions of its group widths, and independent counts of a built model."""

from automl_prune.costs.base import Cost, CostModel, cost_metrics
from automl_prune.costs.counted import contradiction, count_costs
from automl_prune.costs.macs import count_macs, count_params
from automl_prune.costs.memory import LiveTensor, PeakMemory, count_memory
from automl_prune.costs.polynomial import WidthPolynomial

__all__ = [
    "Cost", "CostModel", "LiveTensor", "PeakMemory", "WidthPolynomial", "contradiction", "cost_metrics", "count_costs",
    "count_macs", "count_memory", "count_params",
]  # fmt: skip
