"""Knapsack and greedy widths against every combination of widths of small networks."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from automl_prune.costs import WidthPolynomial
from automl_prune.projection import Projector
from automl_prune.projection.allocation import greedy_widths, total
from automl_prune.projection.width_errors import errors_of_scores
from tests.projection.problems import Problem, chain, problems, space


def scores(widths: list[int], seed: int) -> dict[str, dict[str, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    return {"l1": {f"conv{i}": torch.from_numpy(rng.gamma(0.5, size=width) + 1e-6) for i, width in enumerate(widths)}}


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("seed", range(5))
def test_knapsack_is_close_to_the_best_of_all_widths(share: float, seed: int) -> None:
    widths = [7, 9, 8, 6]
    graph, values = chain(widths, [64, 16, 16, 4, 1]), scores(widths, seed)
    limit = share * graph.dense_costs["macs"]
    curves = list(errors_of_scores(values["l1"]).values())
    found = Projector(graph, space(max_prune_ratio=1.0), {"macs": limit}, values).knapsack("l1").widths
    ours = total(curves, np.array(list(found.values())))
    every = np.array(list(product(*(range(1, width + 1) for width in widths))))
    fitting = every[graph.macs.evaluate_all(every) <= limit]
    sums = sum(curve[fitting[:, number]] for number, curve in enumerate(curves))
    assert isinstance(sums, np.ndarray)
    assert ours <= sums.min() * 1.05 + 1e-9
    assert (sums < ours - 1e-12).mean() < 0.001, "of all widths that fit, fewer than one in a thousand is better"


def test_knapsack_beats_uniform_and_greedy_by_its_own_measure() -> None:
    widths = [32, 48, 64, 32]
    graph, values = chain(widths), scores(widths, 0)
    found = Projector(graph, space(), {"macs": 0.4 * graph.dense_costs["macs"]}, values)
    curves = list(errors_of_scores(values["l1"]).values())
    sums = [
        total(curves, np.array(list(candidate.widths.values())))
        for candidate in (found.knapsack("l1"), found.greedy("l1"), found.uniform("l1"))
    ]
    assert sums[0] <= sums[1] < sums[2]


def reference(
    cost: WidthPolynomial, widths: NDArray[np.int64], curves: list[NDArray[np.float64]], target: float
) -> list[int]:
    """Greedy in the plainest form."""
    present: list[int] = widths.tolist()
    at = cost.evaluate
    while at(present) > target:
        ratios = {}
        for number, width in enumerate(present):
            if width > 1:
                narrower = [*present[:number], width - 1, *present[number + 1 :]]
                added = curves[number][width - 1] - curves[number][width]
                ratios[number] = added / (at(present) - at(narrower))
        present[min(ratios, key=lambda number: ratios[number])] -= 1
    return present


@given(st.lists(st.integers(2, 9), min_size=1, max_size=4), st.integers(0, 99), st.floats(0.1, 1))
def test_greedy_takes_the_cheapest_step_each_time(widths: list[int], seed: int, share: float) -> None:
    graph = chain(widths)
    curves = list(errors_of_scores(scores(widths, seed)["l1"]).values())
    target = max(share * graph.dense_costs["macs"], graph.macs.evaluate([1] * len(widths)))
    allowed = [tuple(range(1, width + 1)) for width in widths]
    found = greedy_widths(graph.macs, allowed, curves, target)
    assert found.tolist() == reference(graph.macs, np.array(widths), curves, target)


@given(problem=problems(), share=st.floats(0.2, 1), kind=st.sampled_from(["knapsack", "greedy", "uniform"]))
def test_every_limit_holds_and_no_step_is_left(problem: Problem, share: float, kind: str) -> None:
    widths, whole = (
        getattr(problem.projector(), kind)(problem.space.criteria[0], each).widths for each in (share, 1.0)
    )
    assert all(width in problem.allowed[name] for name, width in widths.items())
    limits = problem.bounds(share, whole)
    assert all(problem.cost(metric, widths) <= limit for metric, limit in limits.items())
    for name, width in widths.items():
        wider = [w for w in problem.allowed[name] if w > width][:1]
        assert not wider or any(
            problem.cost(metric, {**widths, name: wider[0]}) > limit for metric, limit in limits.items()
        )


def test_measured_errors_replace_those_of_the_scores() -> None:
    graph = chain([16, 16])
    found = Projector(
        graph, space(), {"macs": 0.5 * graph.dense_costs["macs"]}, {"l1": {n: torch.ones(16) for n in graph.widths}}
    )
    steep = np.linspace(1, 0, 17)
    for kind in (found.knapsack, found.greedy):
        widths = kind("l1", 1.0, {"conv0": 100 * steep, "conv1": steep}).widths
        assert widths["conv0"] == 16
        assert widths["conv1"] < 16
