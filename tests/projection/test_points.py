"""Points of a search space: which are refused, which are near a candidate, what stages and coefficients do."""

from __future__ import annotations

from typing import Any

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
        ({"allocation": "global rank"}, "no allocation 'global rank'.*'global'"),
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
    with pytest.raises(
        ConfigError, match="no value for allocation, importance_exponent, residual/conv0, residual/conv1"
    ):
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
    wide, narrow = (projector(graph, limits, residual=reach, allocations=["uniform"]) for reach in (3.0, 0.1))
    steep = {"conv0": np.linspace(9, 0, 17), "conv1": np.linspace(1, 0, 17), "conv2": np.linspace(2, 0, 17)}
    candidate = wide.greedy("l1", 1.0, steep)
    assert max(candidate.widths.values()) > 1.5 * min(candidate.widths.values())
    assert wide.candidate(wide.point_near(candidate, 1.0)) == candidate
    near = narrow.point_near(candidate, 1.0)
    assert narrow.candidate(near) != candidate
    assert {abs(float(near[f"residual/{name}"])) for name in graph.widths} <= {0.1}


def uneven(widths: list[int], **values: Any) -> Projector:
    """A projector whose allocations all differ."""
    graph, random = chain(widths), np.random.default_rng(0)
    scores = {
        name: {group.name: torch.from_numpy(random.gamma(shape, size=group.width) + 1e-9) for group in graph.groups}
        for name, shape in (("l1", 0.5), ("l2", 2.0))
    }
    scores = {name: {group: each / each.mean() for group, each in mine.items()} for name, mine in scores.items()}
    limits = {"macs": 0.5 * graph.dense_costs["macs"]}
    return Projector(graph, space(criteria=["l1", "l2"], **values), limits, scores)


@pytest.mark.parametrize("target", [1.0, 0.8])
def test_every_allocation_is_a_point_and_found_as_one(target: float) -> None:
    found = uneven([32, 48, 32, 64])
    made = {
        "uniform": found.uniform("l1", target),
        "global": found.ranked("l1", target),
        "greedy": found.greedy("l1", target),
        "knapsack": found.knapsack("l1", target),
    }
    assert len({candidate.digest for candidate in made.values()}) >= 3, "they differ"
    for allocation, candidate in made.items():
        point = {**found.uniform_point("l1", target), "allocation": allocation}
        assert found.candidate(point) == candidate
        assert found.candidate(found.point_near(candidate, target)) == candidate


@pytest.mark.parametrize("allocation", ["uniform", "global", "greedy", "knapsack"])
def test_residuals_correct_what_an_allocation_gives(allocation: str) -> None:
    found = uneven([32, 48, 32, 64])
    start = {**found.uniform_point("l1", 1.0), "allocation": allocation}
    widths = {value: found.candidate({**start, "residual/conv1": value}).widths for value in (-0.4, 0.0, 0.4)}
    assert widths[-0.4]["conv1"] < widths[0.0]["conv1"] < widths[0.4]["conv1"]
    given = widths[0.0]["conv0"] / widths[0.0]["conv3"]
    for value in (-0.4, 0.4):
        assert widths[value]["conv0"] / widths[value]["conv3"] == pytest.approx(given, rel=0.1), "as before"


@pytest.mark.parametrize("change", [{"criterion": "l2"}, {"criterion/conv1": "l2"}])
def test_widths_are_allocated_by_the_first_criterion_whichever_chooses_the_channels(change: dict[str, str]) -> None:
    scope = "group" if "criterion/conv1" in change else "all"
    found = uneven([32, 48, 32, 64], criterion_scope=scope, importance_exponent=[0, 0])
    point = {**found.uniform_point("l1", 1.0), "allocation": "knapsack"}
    changed = found.candidate({**point, **change})
    assert found.candidate(point).widths == changed.widths != found.knapsack("l2").widths
    assert changed.choices["conv1"].criterion == "l2"


def test_one_allocation_is_no_choice() -> None:
    found = uneven([32, 48, 32, 64], allocations=["greedy"])
    point = found.uniform_point("l1", 1.0)
    assert "allocation" not in point
    assert found.candidate(point) == found.greedy("l1")
    assert uneven([8, 8], allocations=["greedy", "global"]).uniform_point("l1", 1.0)["allocation"] == "greedy"


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
        "target_cost", "allocation", "importance_exponent", "depth_slope", "residual/stage1", "residual/stage2",
    }  # fmt: skip
    wide = found.candidate({**even_point, "residual/stage2": 0.4}).widths
    assert wide["conv0"] < wide["conv2"]
    assert max(abs(wide["conv0"] - wide["conv1"]), abs(wide["conv2"] - wide["conv3"])) <= 1
    sloped = found.candidate({**even_point, "depth_slope": 0.4}).widths
    assert sloped["conv0"] < sloped["conv1"] < sloped["conv2"] < sloped["conv3"]
    assert found.candidate(found.point_near(found.candidate(even_point), 1.0)).widths == found.uniform("l1").widths
    assert all(0 <= value <= 1 for values in found.network().values() for value in values)


@pytest.mark.parametrize("allocation", ["global", "greedy", "knapsack"])
def test_a_space_of_one_allocation_finds_the_others_from_its_own_widths(allocation: str) -> None:
    found = uneven([32, 48, 32, 64], allocations=[allocation], residual=3.0)
    for candidate in (found.uniform("l1"), found.ranked("l1"), found.greedy("l1"), found.knapsack("l1")):
        assert found.candidate(found.point_near(candidate, 1.0)) == candidate


def test_proportions_of_widths_that_are_not_allowed_here() -> None:
    graph = chain([16, 24, 16])
    limits = {"macs": 0.6 * graph.dense_costs["macs"]}
    given_ = projector(graph, {"macs": 0.4 * graph.dense_costs["macs"]}).uniform("l1")
    assert any(width % 4 for width in given_.widths.values())
    coarse = projector(graph, limits, round_to=4)
    found = coarse.alike(given_)
    assert all(width % 4 == 0 for width in found.widths.values())
