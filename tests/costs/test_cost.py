"""Cost values and the metrics a budget may bound."""

from __future__ import annotations

import pytest

from automl_prune.costs import Cost, cost_metrics
from automl_prune.costs.base import CostMetric
from automl_prune.errors import ConfigError


def test_ratio_is_to_the_dense_model() -> None:
    assert Cost("macs", 10.0, 40.0).ratio == 0.25


def test_metrics_know_their_names() -> None:
    assert {name: cost_metrics[name].name for name in cost_metrics} == {name: name for name in cost_metrics}
    assert {"macs", "params"} <= set(cost_metrics)


def test_a_metric_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="'macs' is registered twice"):
        cost_metrics.register("macs")(CostMetric("macs", "x", "x"))
