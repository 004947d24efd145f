"""What is said of measured latencies, and where exported models have theirs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from automl_prune.costs import Cost
from automl_prune.costs.latency import Fingerprint, LatencyMeasurement, cost_of
from automl_prune.errors import CheckpointError
from automl_prune.report.measured import (
    NO_FASTER,
    NOISY,
    SLOWER,
    cost_beside_dense,
    exported_latencies,
    latency_sentence,
    remarks,
)
from automl_prune.study.directory import RunDirectory

HERE = Fingerprint("a runtime", "none", "a table", 1, 1, 1, "wall time")


def measured(*ratios: float) -> LatencyMeasurement:
    """A model beside a dense one of 4 ms that took a second in every round."""
    rounds: Sequence[float] = ratios if len(ratios) > 1 else ratios * 6
    return LatencyMeasurement(tuple((ratio,) for ratio in rounds), ((1.0,),) * len(rounds), 0.004, HERE)


def latency(*ratios: float) -> Cost:
    return cost_of(measured(*ratios).summary())


def test_a_model_slower_than_the_dense_one_is_said_to_be() -> None:
    assert latency_sentence(latency(0.5)) == "Latency: 2 ms, 50.0% of the dense model's (95 % interval 50.0% to 50.0%)"
    assert remarks(latency(0.5)) == []
    assert f"150.0% of the dense model's (95 % interval 150.0% to 150.0%); {SLOWER}: bound" in latency_sentence(
        latency(1.5)
    )
    assert cost_beside_dense(latency(1.5)) == f"6 ms (150.0 %, {SLOWER})"


def test_what_may_be_as_slow_as_the_dense_model_is_not_called_faster_or_slower() -> None:
    around = latency(0.99, 0.99, 0.99, 1.01, 1.01, 1.01, 1.0)
    assert remarks(around) == [NO_FASTER]
    assert remarks(latency(0.97, 0.97, 0.97, 0.98, 0.98, 0.98, 0.98)) == []


def test_noise_is_said_with_its_reason() -> None:
    shaky = latency(0.4, 0.5, 0.6, 0.4, 0.5, 0.6, 0.5)
    assert remarks(shaky) == [NOISY]
    assert shaky.noisy is not None
    assert shaky.noisy in latency_sentence(shaky)


def test_only_latency_has_remarks() -> None:
    assert remarks(Cost("memory", 2.0, 1.0)) == []


def test_an_export_over_its_budget_is_said_to_be() -> None:
    assert "over the budget of 1.9 ms" in latency_sentence(latency(0.5), 0.0019)
    assert "over" not in latency_sentence(latency(0.5), 0.0021)


def test_latencies_come_from_manifests(tmp_path: Path) -> None:
    for trial, manifest in ((3, {"latency": measured(0.5).summary()}), (17, {})):
        folder = tmp_path / "models" / str(trial)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    found = exported_latencies(RunDirectory(tmp_path))
    assert found == {3: Cost("latency", 0.002, 0.004, (0.002, 0.002))}
    (tmp_path / "models" / "17" / "manifest.json").write_text('{"latency": {"seconds": 1}}')
    with pytest.raises(CheckpointError, match=r"17.manifest.json was written by another version"):
        exported_latencies(RunDirectory(tmp_path))
    (tmp_path / "models" / "17" / "manifest.json").write_text("{")
    with pytest.raises(CheckpointError, match="17"):
        exported_latencies(RunDirectory(tmp_path))
