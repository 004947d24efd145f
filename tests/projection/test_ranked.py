"""Widths by ranking the channels of all groups together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from automl_prune.errors import ConfigError
from automl_prune.projection import Projector
from tests.projection.problems import Problem, chain, problems, space


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
