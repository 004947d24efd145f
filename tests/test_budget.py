"""Budgets: what can be written, what it means, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from automl_prune.budget import Budget
from automl_prune.costs import cost_metrics
from automl_prune.errors import BudgetError

DENSE = {"macs": 40e6, "params": 270_000.0}


@pytest.mark.parametrize(
    ("written", "limit"),
    [
        (0.5, 20e6),
        (1, 40e6),
        (1.0, 40e6),
        ("0.25", 10e6),
        ("1", 40e6),
        (".5", 20e6),
        ("50%", 20e6),
        ("12.5 %", 5e6),
        ("20M", 20e6),
        ("20 M", 20e6),
        ("0.5M", 0.5e6),
        ("1.2G", 1.2e9),
        ("300k", 300e3),
        ("300K", 300e3),
        ("300000", 300e3),
        ("300_000", 300e3),
        ("2e6", 2e6),
        (20_000_000, 20e6),
        (np.int64(1000), 1000.0),
        (np.float32(0.5), 20e6),
    ],
)
def test_what_can_be_written(written: Any, limit: float) -> None:
    assert Budget(macs=written).limits(DENSE) == {"macs": pytest.approx(limit, rel=1e-12)}


@pytest.mark.parametrize(
    "written",
    [
        0,
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        True,
        False,
        "",
        "nan",
        "inf",
        "-3",
        "0",
        "0M",
        "0%",
        "much",
        "20m",
        "20MB",
        "1.2.3",
        "5 0",
        "1e999",
        [0.5],
        {"a": 1},
    ],
)
@pytest.mark.parametrize("metric", ["macs", "flops"])
def test_what_is_refused_names_metric_and_value_and_the_cure(written: Any, metric: str) -> None:
    with pytest.raises(BudgetError) as error:
        Budget(**{metric: written})
    assert f"{metric}={written!r}" in str(error.value)
    assert "'20M'" in str(error.value)


def test_more_than_all_is_refused() -> None:
    with pytest.raises(BudgetError, match="more than the dense model"):
        Budget(macs="120%")


def test_flops_are_twice_the_macs_when_absolute_and_the_same_when_relative() -> None:
    assert Budget.parse({"flops": "20M"}).limits(DENSE) == {"macs": 10e6}
    assert Budget.parse({"flops": 0.5}).limits(DENSE) == {"macs": 20e6}
    assert "flops=20M" in Budget.parse({"flops": "20M"}).describe(DENSE)
    assert "1 MAC = 2 FLOPs" in Budget.parse({"flops": "20M"}).describe(DENSE)
    assert "same fraction" in Budget.parse({"flops": 0.5}).describe(DENSE)


def test_flops_that_halve_to_less_than_one_stay_absolute() -> None:
    assert Budget(flops="0.0015k").limits(DENSE) == {"macs": 0.75}


@pytest.mark.parametrize("value", [1.5, 50, "50", 100])
@pytest.mark.parametrize("metric", ["macs", "params", "flops"])
def test_a_number_that_is_no_fraction_and_no_count_is_refused(metric: str, value: float | str) -> None:
    with pytest.raises(BudgetError, match=r"less than any model costs, and no fraction; give a fraction .*'50%'"):
        Budget(**{metric: value})
    assert not Budget(**{metric: 101}).bounds["macs" if metric == "flops" else metric].relative


def test_flops_and_macs_together_are_refused() -> None:
    with pytest.raises(BudgetError, match=r"macs=0.5 and flops=20M"):
        Budget.parse({"macs": 0.5, "flops": "20M"})


def test_the_order_given_is_kept_and_none_is_no_bound() -> None:
    assert list(Budget(params="300k", macs=0.5).limits(DENSE)) == ["params", "macs"]
    assert Budget(params=None, macs=0.5).metrics == ("macs",)


@pytest.mark.parametrize("values", [{}, {"macs": None}])
def test_an_empty_budget_is_refused(values: dict[str, None]) -> None:
    with pytest.raises(BudgetError, match="budget is empty"):
        Budget.parse(values)


@pytest.mark.parametrize("values", [0.5, "macs=0.5", ["macs"], None, {1: 0.5}])
def test_what_is_no_mapping_is_refused(values: object) -> None:
    with pytest.raises(BudgetError, match="not a mapping"):
        Budget.parse(values)


@pytest.mark.parametrize(("name", "near"), [("mac", "'macs'"), ("parms", "'params'"), ("flop", "'flops'")])
def test_an_unknown_metric_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(BudgetError, match=f"unknown metric '{name}'; did you mean {near}"):
        Budget.parse({name: 0.5})


def test_a_cost_the_dense_model_lacks_is_an_error() -> None:
    with pytest.raises(BudgetError, match="params"):
        Budget(params=0.5).limits({"macs": 1.0})


def test_describe_gives_absolute_and_relative_values() -> None:
    text = Budget(macs=0.5, params="300k").describe(DENSE)
    first, second = text.splitlines()
    assert "20M MACs" in first
    assert "50.0%" in first
    assert "300k parameters" in second
    assert "meets it already" in second
    assert "meets it already" not in first


def test_budgets_are_values() -> None:
    assert Budget(macs=0.5) == Budget.parse({"macs": 0.5})
    assert hash(Budget(macs=0.5)) == hash(Budget(macs=0.5))
    assert Budget(macs=0.5) != Budget(macs="50M")
    with pytest.raises(AttributeError):
        Budget(macs=0.5).bounds = {}  # type: ignore[misc]  # what is tested


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("macs", 20_350_000, "20.35M MACs"),
        ("macs", 999, "999 MACs"),
        ("params", 1.5e9, "1.5G parameters"),
        ("macs", 0.5, "0.5 MACs"),
        ("memory", 1_250_000, "1.25 MB"),
        ("size", 512, "512 B"),
        ("latency", 0.00425, "4.25 ms"),
        ("latency", 2.5, "2.5 s"),
        ("latency", 3e-7, "0.3 µs"),
    ],
)
def test_quantities_for_people(metric: str, value: float, text: str) -> None:
    assert cost_metrics[metric].show(value) == text


@pytest.mark.parametrize(
    ("metric", "written", "limit"),
    [
        ("latency", "4ms", 0.004),
        ("latency", "250us", 250e-6),
        ("latency", "250 µs", 250e-6),
        ("latency", "1.5s", 1.5),
        ("latency", "0.5s", 0.5),
        ("latency", 0.6, 0.6 * 0.01),
        ("latency", "60%", 0.6 * 0.01),
        ("memory", "2MB", 2e6),
        ("memory", "2MiB", 2 * 2**20),
        ("size", "500kB", 5e5),
        ("size", "300000B", 3e5),
        ("size", 1, 1e6),
    ],
)
def test_each_metric_has_its_units(metric: str, written: Any, limit: float) -> None:
    dense = {"latency": 0.01, "memory": 8e6, "size": 1e6}
    assert Budget(**{metric: written}).limits(dense) == {metric: pytest.approx(limit, rel=1e-12)}


@pytest.mark.parametrize(
    ("metric", "written", "words"),
    [
        ("latency", "4MB", ["unknown suffix 'MB'", "s, ms, us", "'4ms'"]),
        ("latency", "4M", ["unknown suffix 'M'", "'4ms'"]),
        ("latency", 4, ["has no unit", "'4ms'"]),
        ("memory", 20_000_000, ["has no unit", "'2MB'", "MiB"]),
        ("memory", "2ms", ["unknown suffix 'ms'", "'2MB'"]),
        ("size", "500kb", ["unknown suffix 'kb'", "'500kB'"]),
        ("macs", "4ms", ["unknown suffix 'ms'", "k, K, M, G, T"]),
        ("latency", "0ms", ["not a positive number", "'4ms'"]),
    ],
)
def test_a_wrong_unit_is_refused_with_the_right_ones(metric: str, written: Any, words: list[str]) -> None:
    with pytest.raises(BudgetError) as error:
        Budget(**{metric: written})
    assert f"{metric}={written!r}" in str(error.value)
    assert all(word in str(error.value) for word in words)


def test_describe_prints_milliseconds_and_megabytes() -> None:
    text = Budget(latency=0.6, memory="2MB").describe({"latency": 0.01, "memory": 8e6})
    assert text.splitlines() == [
        "latency <= 6 ms, 60.0% of the dense model's 10 ms",
        "memory <= 2 MB, 25.0% of the dense model's 8 MB",
    ]
