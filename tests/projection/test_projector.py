"""The projection: never over a budget, never outside the limits, as close to the target as whole channels allow."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.errors import BudgetError
from automl_prune.projection.projector import Projector, participation_ratio
from automl_prune.space import FloatParameter, WidthLimits
from tests.projection.problems import Problem, chain, problems, projector, space


@given(problems())
def test_every_budget_the_target_and_the_width_limits_hold(problem: Problem) -> None:
    widths = problem.widths()
    assert problem.meets(widths)
    assert all(widths[name] in allowed for name, allowed in problem.allowed.items())


@given(problems())
def test_no_group_can_be_raised_by_a_step(problem: Problem) -> None:
    widths = problem.widths()
    for name, allowed in problem.allowed.items():
        wider = [width for width in allowed if width > widths[name]]
        assert not wider or not problem.meets({**widths, name: wider[0]})


@given(problems(), st.floats(0.3, 1))
def test_a_larger_target_never_gives_a_cheaper_candidate(problem: Problem, other: float) -> None:
    metric = next(iter(problem.limits))
    low, high = sorted([float(problem.point["target_cost"]), other])
    few, more = (problem.widths(allocation="uniform", target_cost=target) for target in (low, high))
    assert problem.cost(metric, few) <= problem.cost(metric, more)


@given(problems())
def test_widths_are_those_of_the_greatest_common_scale_or_wider(problem: Problem) -> None:
    """The documented formula, evaluated at every scale where it changes, without the code's shortcuts."""
    weights = {}
    for name, allowed in problem.allowed.items():
        ratios = {
            group: participation_ratio(problem.scores[str(problem.point.get(f"criterion/{name}", "l1"))][group])
            for group in problem.graph.widths
        }
        logs = [math.log(ratio) for ratio in ratios.values()]
        spread = statistics.pstdev(logs)
        importance = math.exp((math.log(ratios[name]) - statistics.fmean(logs)) / spread) if spread > 1e-9 else 1.0
        residual = float(problem.point.get(f"residual/{name}", 0.0))
        weights[name] = importance ** float(problem.point["importance_exponent"]) * math.exp(residual)
        assert allowed[-1] == problem.graph.widths[name]

    def rounded(scale: float) -> dict[str, int]:
        return {
            name: min(allowed, key=lambda width: (abs(scale * weights[name] * allowed[-1] - width), -width))
            for name, allowed in problem.allowed.items()
        }

    changes = sorted(
        (a + b) / 2 / allowed[-1] / weights[name]
        for name, allowed in problem.allowed.items()
        for a, b in pairwise(allowed)
    )
    scales = [0.0, *((a + b) / 2 for a, b in pairwise(changes) if b - a > 1e-9 * b), *(2 * c for c in changes[-1:])]
    feasible = [widths for widths in map(rounded, scales) if problem.meets(widths, allocation="uniform")]
    widths = problem.widths(allocation="uniform")
    for below in feasible:
        assert all(widths[name] >= below[name] for name in widths)


@given(problems())
def test_equal_points_give_equal_candidates_with_the_criteria_asked_for(problem: Problem) -> None:
    candidate = problem.projector().candidate(problem.point)
    assert candidate == problem.projector().candidate(problem.point)
    for name, choice in candidate.choices.items():
        assert choice.criterion == problem.point.get(f"criterion/{name}", "l1")


@given(problems())
def test_the_reachable_range_is_that_of_the_width_limits(problem: Problem) -> None:
    narrowest = {name: allowed[0] for name, allowed in problem.allowed.items()}
    assert problem.projector().reachable() == {
        metric: (problem.cost(metric, narrowest), problem.cost(metric, problem.graph.widths))
        for metric in problem.limits
    }


@given(problems())
def test_targets_below_the_reachable_minimum_are_not_proposed(problem: Problem) -> None:
    metric = next(iter(problem.limits))
    target = problem.projector().parameters[0]
    assert isinstance(target, FloatParameter)
    assert problem.space.target_cost <= target.low <= target.high == 1.0
    least, most = problem.projector().reachable()[metric]
    # What is proposed can be reached, up to float noise; what is left out cannot.
    assert target.low * min(problem.limits[metric], most) >= least * (1 - 1e-12)
    assert target.low == problem.space.target_cost or target.low * min(problem.limits[metric], most) <= least * (
        1 + 1e-12
    )


@given(st.lists(st.integers(8, 64), min_size=1, max_size=6), st.floats(0.4, 1))
def test_the_uniform_point_does_not_look_at_scores(widths: list[int], target: float) -> None:
    graph = chain(widths)
    uneven = {"l1": {group.name: torch.arange(1.0, group.width + 1) ** (i + 1) for i, group in enumerate(graph.groups)}}
    limits = {"macs": graph.dense_costs["macs"] / 2}
    blind, seeing = projector(graph, limits), Projector(graph, space(), limits, uneven)
    assert blind.uniform_point("l1", target) == seeing.uniform_point("l1", target)
    point = blind.uniform_point("l1", target)
    assert blind.candidate(point) == seeing.candidate(point)


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5, 0.75])
def test_the_uniform_point_keeps_one_fraction_up_to_rounding(share: float) -> None:
    graph = chain([32, 64, 128, 64, 96])
    found = projector(graph, {"macs": graph.dense_costs["macs"] * share})
    kept = found.candidate(found.uniform_point("l1", 1.0)).widths
    # A common fraction f with f * width - 1/2 <= kept <= f * width + 1/2, and up to two channels more from filling.
    least = max((kept[name] - 2.5) / width for name, width in graph.widths.items())
    most = min((kept[name] + 0.5) / width for name, width in graph.widths.items())
    assert least <= most


def test_uniform_widths_by_hand() -> None:
    graph = chain([16, 32, 64])
    dense = graph.dense_costs["macs"]
    half = {"conv0": 8, "conv1": 16, "conv2": 32}
    found = projector(graph, {"macs": float(graph.macs.at(half))})
    assert found.candidate(found.uniform_point("l1", 1.0)).widths == half
    whole = projector(graph, {"macs": dense})
    assert whole.candidate(whole.uniform_point("l1", 1.0)).widths == graph.widths


def test_a_positive_residual_widens_its_group_at_the_others_expense() -> None:
    graph = chain([32, 32, 32, 32])
    found = projector(graph, {"macs": graph.dense_costs["macs"] / 2})
    point = {**found.uniform_point("l1", 1.0)}
    before = found.candidate(point).widths
    after = found.candidate({**point, "residual/conv1": 0.4}).widths
    assert after["conv1"] > before["conv1"]
    assert all(after[name] <= before[name] for name in ("conv0", "conv2", "conv3"))


def test_with_a_positive_exponent_concentrated_groups_are_cut_deeper() -> None:
    graph = chain([32, 32])
    scores = {"l1": {"conv0": torch.ones(32), "conv1": torch.cat([torch.full((4,), 7.9), torch.full((28,), 1 / 70)])}}
    found = Projector(graph, space(max_prune_ratio=1.0), {"macs": graph.dense_costs["macs"] / 2}, scores)

    def widths(exponent: float) -> dict[str, int]:
        return found.candidate({**found.uniform_point("l1", 1.0), "importance_exponent": exponent}).widths

    assert abs(widths(0.0)["conv0"] - widths(0.0)["conv1"]) <= 1
    assert widths(1.0)["conv1"] < widths(0.0)["conv1"] < widths(0.0)["conv0"] + 2 <= widths(1.0)["conv0"] + 2
    assert widths(-1.0)["conv1"] > widths(0.0)["conv1"]


@pytest.mark.parametrize(
    ("scores", "ratio"), [([1.0, 1, 1, 1], 1.0), ([0.0, 0, 5, 0], 0.25), ([1.0, 3], 16 / 20), ([2.0], 1.0)]
)
def test_participation_ratio_by_hand(scores: list[float], ratio: float) -> None:
    assert participation_ratio(torch.tensor(scores)) == pytest.approx(ratio)


def test_an_unreachable_budget_says_the_reachable_minimum() -> None:
    graph = chain([20, 20])
    least = graph.macs.at({"conv0": 2, "conv1": 2})
    with pytest.raises(BudgetError) as error:
        projector(graph, {"macs": least - 1}, max_prune_ratio=0.9)
    share = least / graph.dense_costs["macs"]
    assert f"{share:.2%} of the dense model" in str(error.value)
    assert "max_prune_ratio" in str(error.value)
    assert projector(graph, {"macs": least}, max_prune_ratio=0.9).reachable()["macs"][0] == least


def test_every_unreachable_budget_is_told() -> None:
    graph = chain([20, 20])
    with pytest.raises(BudgetError, match=r"(?s)budget macs.*budget params"):
        projector(graph, {"macs": 1.0, "params": 1.0})


def test_a_second_budget_binds_too() -> None:
    graph = chain([32, 32], [100, 1, 1])  # params are in conv1, MACs in conv0
    macs, params = graph.dense_costs["macs"] * 0.9, graph.dense_costs["params"] * 0.2
    found = projector(graph, {"macs": macs, "params": params})
    widths = found.candidate(found.uniform_point("l1", 1.0)).widths
    assert graph.params.at(widths) <= params
    alone = projector(graph, {"macs": macs})
    assert graph.params.at(alone.candidate(alone.uniform_point("l1", 1.0)).widths) > params


@pytest.mark.parametrize("kind", ["uniform", "ranked", "greedy", "knapsack"])
def test_where_a_second_budget_stops_the_widths_targets_are_shares_of_what_they_cost_there(kind: str) -> None:
    graph = chain([32, 48, 64], [64, 16, 4, 1])
    macs, params = graph.dense_costs["macs"], graph.dense_costs["params"]
    found = projector(graph, {"macs": 0.9 * macs, "params": 0.3 * params})
    shares = (1.0, 0.85, 0.7)
    costs = [graph.macs.at(getattr(found, kind)("l1", share).widths) for share in shares]
    assert costs[0] < 0.8 * macs, "the parameters stop them"
    least = 0.97 if kind in ("uniform", "ranked") else 0.9  # these weigh what the first budget saves, then make room
    for share, cost in zip(shares, costs, strict=True):
        assert least * share * costs[0] <= cost <= share * costs[0]


def test_a_second_budget_that_stops_nothing_changes_no_target() -> None:
    graph = chain([32, 48, 64], [64, 16, 4, 1])
    limits = {"macs": 0.5 * graph.dense_costs["macs"]}
    alone, loose = (projector(graph, each) for each in (limits, {**limits, "params": graph.dense_costs["params"]}))
    for share in (1.0, 0.85, 0.7):
        assert alone.knapsack("l1", share) == loose.knapsack("l1", share)


def test_a_budget_above_the_dense_model_counts_as_the_dense_model() -> None:
    graph = chain([10, 10])
    roomy, exact = (projector(graph, {"macs": graph.dense_costs["macs"] * factor}) for factor in (3, 1))
    for target in (0.7, 0.85, 1.0):
        point = exact.uniform_point("l1", target)
        assert roomy.candidate(point) == exact.candidate(point)


def test_excluded_groups_stay_whole_and_rounding_is_honoured() -> None:
    graph = chain([20, 36, 20])
    found = projector(graph, {"macs": graph.dense_costs["macs"] * 0.6}, exclude=["conv0"], round_to=8)
    widths = found.candidate(found.uniform_point("l1", 1.0)).widths
    assert widths["conv0"] == 20
    assert {widths["conv1"] % 8, widths["conv2"] % 8} == {0}
    assert WidthLimits.of(20, round_to=8, min_width=1, max_prune_ratio=0.9).widths() == (8, 16, 20)


@pytest.mark.parametrize("limits", [{}, {"latency": 1.0}])
def test_budgets_that_no_polynomial_knows_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(BudgetError):
        projector(chain([8]), limits)


def test_a_model_without_groups_has_one_candidate() -> None:
    graph = chain([])
    found = projector(graph, {"macs": graph.dense_costs["macs"]})
    assert found.candidate(found.uniform_point("l1", 1.0)).widths == {}
    with pytest.raises(BudgetError, match=r"100\.00% of the dense model"):
        projector(graph, {"macs": graph.dense_costs["macs"] / 2})
