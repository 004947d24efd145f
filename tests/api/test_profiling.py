"""What `automl-prune profile` says of latency."""

from __future__ import annotations

import re

import pytest

from automl_prune.api.profiling import SHOWN, DenseLatency, _reach
from automl_prune.budget import Budget
from automl_prune.costs.latency import OTHER, Fingerprint, LatencyMeasurement
from tests.projection.problems import chain, space

HERE = Fingerprint("onnxruntime 1.0", "CPUExecutionProvider", "a processor", 2, 1, 4, "processor time")
FOUND = LatencyMeasurement(((0.002,),) * 6, ((0.002,),) * 6, 0.002, HERE)


def test_the_latency_names_its_unit_and_what_it_was_measured_on() -> None:
    text = DenseLatency(FOUND, {}).explain()
    assert "2 ms for a batch of 4" in text
    assert "onnxruntime 1.0, CPUExecutionProvider, a processor, 1 thread of 2 cores, processor time" in text
    assert "1.000 to 1.000" in text
    assert "layer" not in text


def test_the_slowest_layers_come_first_and_the_shares_add_up() -> None:
    seconds = {f"layer{number}.weight": number * 1e-4 for number in range(1, SHOWN + 4)} | {OTHER: 5e-4}
    rows = DenseLatency(FOUND, seconds).explain().splitlines()[3:]
    assert rows[0].split()[0] == f"layer{SHOWN + 3}.weight"
    assert rows[SHOWN].startswith("3 more layers")
    assert rows[SHOWN + 1].startswith("all that is no layer")
    assert len(rows) == SHOWN + 2
    shares = [float(row.rpartition(" ")[2].rstrip("%")) for row in rows]
    assert abs(sum(shares) - 100) < 0.1 * len(rows)


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        ({"macs": 0.5, "params": "50%"}, "budget macs=0.5, params=50%: can be reached"),
        ({"macs": 1e-6}, "budget macs <= .* cannot be reached: .* of the dense model"),
        ({"macs": 0.5, "latency": "4ms"}, "can be reached\nbudget latency=4ms: only a search can tell"),
        ({"latency": 0.5}, "^budget latency=0.5: only a search can tell"),
    ],
)
def test_the_profile_says_whether_the_budget_can_be_reached(budget: dict[str, float | str], said: str) -> None:
    graph = chain([16, 32])
    assert re.search(said, _reach(Budget(**budget), graph, space()))
