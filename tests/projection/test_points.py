"""Points of a search space: which are refused, which are near a candidate, what stages and coefficients do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.errors import ConfigError
from automl_prune.projection import Projector
from automl_prune.space import Space
from tests.projection.problems import Problem, chain, even, problems, projector, space


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"residual/conv9": 0.0}, "'residual/conv9' is no parameter"),
        ({"residual/conv0": float("nan")}, "residual/conv0 is nan"),
        ({"residual/conv0": "much"}, "residual/conv0 is 'much'"),
        ({"criterion": "l9"}, "'l9' is not in the search space"),
    ],
)
def test_wrong_points_are_refused(change: dict[str, float | str], message: str) -> None:
    graph = chain([8, 8])
    scores = {name: even(graph)["l1"] for name in ("l1", "l2")}
    found = Projector(graph, space(criteria=["l1", "l2"]), {"macs": graph.dense_costs["macs"]}, scores)
    with pytest.raises(ConfigError, match=message):
        found.candidate({**found.uniform_point("l1", 1.0), **change})


def test_missing_values_are_refused() -> None:
    graph = chain([8, 8])
    with pytest.raises(ConfigError, match="no value for importance_exponent, residual/conv0, residual/conv1"):
        projector(graph, {"macs": 1e9}).candidate({"target_cost": 1.0})


def test_uniform_points_of_another_criterion_are_refused_and_targets_are_moved_inside() -> None:
    graph = chain([8, 8])
    found = projector(graph, {"macs": graph.dense_costs["macs"]}, target_cost=0.6)
    with pytest.raises(ConfigError, match="'l2' is not in the search space"):
        found.uniform_point("l2", 1.0)
    assert found.uniform_point("l1", 0.1)["target_cost"] == 0.6
    assert found.uniform_point("l1", 7.0)["target_cost"] == 1.0


@given(problem=problems(), target=st.floats(0.3, 1))
def test_uniform_widths_are_those_of_the_uniform_point(problem: Problem, target: float) -> None:
    found, criterion = problem.projector(), problem.space.criteria[0]
    target = float(found.uniform_point(criterion, target)["target_cost"])
    uniform = found.uniform(criterion, target)
    assert uniform == found.candidate(found.uniform_point(criterion, target))
    assert found.point_near(uniform, target) == found.uniform_point(criterion, target)


def test_the_point_near_a_candidate_gives_it_where_residuals_reach_it() -> None:
    graph = chain([16, 16, 16])
    limits = {"macs": 0.5 * graph.dense_costs["macs"]}
    wide, narrow = projector(graph, limits, residual=3.0), projector(graph, limits, residual=0.1)
    steep = {"conv0": np.linspace(9, 0, 17), "conv1": np.linspace(1, 0, 17), "conv2": np.linspace(2, 0, 17)}
    candidate = wide.greedy("l1", 1.0, steep)
    assert max(candidate.widths.values()) > 1.5 * min(candidate.widths.values())
    assert wide.candidate(wide.point_near(candidate, 1.0)) == candidate
    near = narrow.point_near(candidate, 1.0)
    assert narrow.candidate(near) != candidate
    assert {abs(float(near[f"residual/{name}"])) for name in graph.widths} <= {0.1}


def test_the_network_behind_each_parameter_by_hand() -> None:
    graph = chain([10, 20])
    found = projector(graph, {"params": graph.dense_costs["params"]}, max_prune_ratio=1.0).network()
    dense, narrow = graph.params.evaluate([10, 20]), graph.params.evaluate([1, 20])
    macs = 1 - graph.macs.evaluate([1, 20]) / graph.macs.evaluate([10, 20])
    assert found["residual/conv0"] == pytest.approx((1 - narrow / dense, macs, 1 - narrow / dense, 0.5))
    assert found["residual/conv1"][-1] == 1.0


def test_coefficients_weigh_the_errors_of_a_knapsack() -> None:
    graph = chain([16, 24, 16])
    random = np.random.default_rng(0)
    scores = {"l1": {n: torch.from_numpy(random.gamma(1.0, size=w)) for n, w in graph.widths.items()}}
    chosen = Space.parse({"criteria": ["l1"], "min_width": 1, "coefficient": 2.0}, source="test")
    limit = 0.5 * graph.dense_costs["macs"]
    found = Projector(graph, chosen, {"macs": limit}, scores)
    zero = found.uniform_point("l1", 1.0)
    assert set(zero) == {"target_cost", *(f"coefficient/{name}" for name in graph.widths)}
    assert found.candidate(zero) == found.knapsack("l1")
    assert found.point_near(found.knapsack("l1", 0.8), 0.8) == found.uniform_point("l1", 0.8)
    for name in graph.widths:
        widths = [found.candidate({**zero, f"coefficient/{name}": value}).widths for value in (-2.0, 0.0, 2.0)]
        assert widths[0][name] < widths[2][name]
        assert widths[0][name] <= widths[1][name] <= widths[2][name]
        assert all(0.9 * limit < graph.macs.at(each) <= limit for each in widths)
    assert found.network()["coefficient/conv1"][-1] == 1.0


def test_a_stage_has_one_correction_and_depth_a_slope() -> None:
    graph = chain([32, 32, 32, 32], [64, 64, 16, 16, 1])
    found = projector(graph, {"macs": 0.4 * graph.dense_costs["macs"]}, scope="stage", depth_slope=0.5)
    even_point = found.uniform_point("l1", 1.0)
    assert set(even_point) == {
        "target_cost", "importance_exponent", "depth_slope", "residual/stage1", "residual/stage2",
    }  # fmt: skip
    wide = found.candidate({**even_point, "residual/stage2": 0.4}).widths
    assert wide["conv0"] < wide["conv2"]
    assert max(abs(wide["conv0"] - wide["conv1"]), abs(wide["conv2"] - wide["conv3"])) <= 1
    sloped = found.candidate({**even_point, "depth_slope": 0.4}).widths
    assert sloped["conv0"] < sloped["conv1"] < sloped["conv2"] < sloped["conv3"]
    assert found.candidate(found.point_near(found.candidate(even_point), 1.0)).widths == found.uniform("l1").widths
    assert all(0 <= value <= 1 for values in found.network().values() for value in values)
