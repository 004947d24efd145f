"""The projection: never over a budget, never outside the limits, as close to the target as whole channels allow."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.channels import ChannelGraph, ChannelGroup
from automl_prune.costs.polynomial import AxisLength, Term
from automl_prune.errors import BudgetError, ConfigError
from automl_prune.projection import Projector, participation_ratio
from automl_prune.space import ChoiceParameter, FloatParameter, Space, WidthLimits


def chain(widths: list[int], sizes: list[int] | None = None) -> ChannelGraph:
    """A chain of 3x3 convolutions of given widths on given numbers of positions, 3 channels in, 10 classes out."""
    names = [f"conv{i}" for i in range(len(widths))]
    axes = [AxisLength(3, {}), *(AxisLength(0, {name: 1}) for name in names), AxisLength(10, {})]
    layers = list(zip([*names, "fc"], pairwise(axes), sizes or [16] * len(axes[1:]), strict=True))
    return ChannelGraph(
        groups=tuple(ChannelGroup(name, width, ()) for name, width in zip(names, widths, strict=True)),
        skipped=(),
        shapes={},
        terms=tuple(Term(name, 9 * size, pair) for name, pair, size in layers),
        parameter_terms=tuple(Term(name, 9, pair) for name, pair, _ in layers),
    )


def space(**values: Any) -> Space:
    return Space.parse({"criteria": ["l1"], "min_width": 1, **values}, source="test")


def even(graph: ChannelGraph) -> dict[str, dict[str, torch.Tensor]]:
    """Scores that say nothing."""
    return {"l1": {group.name: torch.ones(group.width) for group in graph.groups}}


def projector(graph: ChannelGraph, limits: Mapping[str, float], **values: Any) -> Projector:
    return Projector(graph, space(**values), limits, even(graph))


@dataclass(frozen=True)
class Problem:
    """A projection problem with everything random."""

    graph: ChannelGraph
    space: Space
    limits: dict[str, float]
    scores: dict[str, dict[str, torch.Tensor]]
    point: dict[str, float | str]

    @property
    def allowed(self) -> dict[str, tuple[int, ...]]:
        return {name: limits.widths() for name, limits in self.space.limits(self.graph.groups).items()}

    def projector(self) -> Projector:
        return Projector(self.graph, self.space, self.limits, self.scores)

    def widths(self, **point: float) -> dict[str, int]:
        return self.projector().candidate({**self.point, **point}).widths

    def cost(self, metric: str, widths: Mapping[str, int]) -> float:
        return self.graph.cost_models[metric].at(widths)

    @property
    def target(self) -> float:
        """The first metric's bound by the documentation, worked out apart from the code."""
        metric = next(iter(self.limits))
        least = self.cost(metric, {name: widths[0] for name, widths in self.allowed.items()})
        ceiling = min(self.limits[metric], self.cost(metric, self.graph.widths))
        return max(least, float(self.point["target_cost"]) * ceiling)

    def meets(self, widths: Mapping[str, int]) -> bool:
        first = next(iter(self.limits))
        bounds = {**self.limits, first: min(self.limits[first], self.target)}
        return all(self.cost(metric, widths) <= bound for metric, bound in bounds.items())


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    count = draw(st.integers(1, 5))
    sizes = draw(st.lists(st.integers(1, 64), min_size=count + 1, max_size=count + 1))
    graph = chain(draw(st.lists(st.integers(1, 40), min_size=count, max_size=count)), sizes)
    chosen = Space.parse(
        {
            "criteria": ["l1", "l2"],
            "criterion_scope": "group",
            "importance_exponent": [-2, 4],
            "residual": 1.0,
            "target_cost": 0.3,
            "round_to": draw(st.integers(1, 9)),
            "min_width": draw(st.integers(1, 9)),
            "max_prune_ratio": draw(st.floats(0, 1)),
            "exclude": draw(st.sampled_from([[], [], ["conv0"]])),
        },
        source="test",
    )
    narrowest = {name: limits.low for name, limits in chosen.limits(graph.groups).items()}
    metrics = draw(st.sampled_from([("macs",), ("params",), ("macs", "params"), ("params", "macs")]))
    limits = {}
    for metric in metrics:
        least, most = (graph.cost_models[metric].at(widths) for widths in (narrowest, graph.widths))
        limits[metric] = least + draw(st.floats(0, 1.2)) * (most - least)
    seed = draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    scores = {
        criterion: {group.name: torch.from_numpy(rng.gamma(0.5, size=group.width) + 1e-9) for group in graph.groups}
        for criterion in ("l1", "l2")
    }
    point: dict[str, float | str] = {}
    for parameter in chosen.parameters(list(graph.widths)):
        if isinstance(parameter, ChoiceParameter):
            point[parameter.name] = draw(st.sampled_from(parameter.choices))
        else:
            point[parameter.name] = draw(st.floats(parameter.low, parameter.high))
    return Problem(graph, chosen, limits, scores, point)


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
    assert problem.cost(metric, problem.widths(target_cost=low)) <= problem.cost(
        metric, problem.widths(target_cost=high)
    )


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
    feasible = [widths for widths in map(rounded, scales) if problem.meets(widths)]
    widths = problem.widths()
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


def test_ranked_widths_are_the_best_channels_of_all_groups() -> None:
    """Against a search over every threshold of the scores."""
    graph = chain([5, 4])
    scores = {"l1": {"conv0": torch.tensor([5.0, 1, 4, 0.5, 3]), "conv1": torch.tensor([2.0, 2.5, 0.1, 6])}}
    every = sorted(torch.cat(list(scores["l1"].values())).tolist())
    for share in (0.2, 0.4, 0.6, 0.8, 1.0):
        limits = {"macs": share * graph.dense_costs["macs"]}
        found = Projector(graph, space(max_prune_ratio=1.0), limits, scores).ranked("l1").widths
        cuts = [{name: max(1, int((s >= t).sum())) for name, s in scores["l1"].items()} for t in every]
        fitting = next(widths for widths in cuts if graph.macs.at(widths) <= limits["macs"])
        assert all(found[name] >= width for name, width in fitting.items())
        for name, width in found.items():  # what is left over is used
            raised = {**found, name: width + 1}
            assert width == graph.widths[name] or graph.macs.at(raised) > limits["macs"]


@given(problem=problems(), per_cost=st.booleans())
def test_ranked_widths_honour_every_limit_and_leave_no_step(problem: Problem, per_cost: bool) -> None:
    criterion = problem.space.criteria[0]
    widths = problem.projector().ranked(criterion, per_cost=per_cost).widths
    assert all(width in problem.allowed[name] for name, width in widths.items())
    assert all(problem.cost(metric, widths) <= limit for metric, limit in problem.limits.items())
    for name, width in widths.items():
        rung = problem.allowed[name].index(width)
        if rung + 1 < len(problem.allowed[name]):
            raised = {**widths, name: problem.allowed[name][rung + 1]}
            assert any(problem.cost(metric, raised) > limit for metric, limit in problem.limits.items())


def test_ranking_per_cost_prefers_the_cheaper_channels() -> None:
    graph = chain([8, 8, 8], [64, 64, 16, 4])
    scores = {"l1": {name: torch.linspace(0.5, 1.5, 8) for name in graph.widths}}
    scores["l1"]["conv2"] = scores["l1"]["conv2"] / 2
    half = Projector(graph, space(), {"macs": 0.5 * graph.dense_costs["macs"]}, scores)
    by_score, by_worth = half.ranked("l1").widths, half.ranked("l1", per_cost=True).widths
    assert by_score["conv2"] < by_worth["conv2"] == 8
    with pytest.raises(ConfigError, match="'l2' is not in the search space"):
        half.ranked("l2")


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
