"""What a pruned model costs: exact polynomials of its group widths, and independent counts of a built model."""

from automl_prune.costs.base import Cost, cost_metrics
from automl_prune.costs.macs import count_macs, count_params
from automl_prune.costs.polynomial import WidthPolynomial

__all__ = ["Cost", "WidthPolynomial", "cost_metrics", "count_macs", "count_params"]
