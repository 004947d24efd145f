"""The baselines of a search: which there are, within the budget, and points of the space."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from automl_prune.api import running
from automl_prune.projection import Projector
from automl_prune.session import Session
from automl_prune.space import ChoiceParameter, Space
from automl_prune.study.directory import RunDirectory
from tests.projection.problems import chain


@pytest.mark.parametrize("residual", [0.0, 0.5])
def test_every_kind_at_three_costs_within_the_budget(
    residual: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain([16, 32, 24], [64, 16, 4, 1])
    space = Space.parse({"criteria": ["obs", "l1"], "target_cost": 0.5, "residual": residual}, source="test")
    random = torch.Generator().manual_seed(0)
    scores = {c: {n: torch.rand(w, generator=random) for n, w in graph.widths.items()} for c in space.criteria}
    limit = 0.5 * graph.dense_costs["macs"]
    projector = Projector(graph, space, {"macs": limit}, scores)

    def measured(evaluator: Any, criterion: str, folder: Path) -> dict[str, dict[int, float]]:
        assert folder == tmp_path / "sensitivity"
        return {"conv0": {8: 0.5}, "conv1": {8: 0.01}, "conv2": {6: 0.1}} if criterion == "l1" else {}

    monkeypatch.setattr(running, "known_drops", measured)
    session = cast(Session, SimpleNamespace(projector=projector, space=space, evaluator=None, graph=graph))
    found = running.baselines_of(session, RunDirectory(tmp_path))
    kinds = [
        "uniform obs", "uniform l1", "global ranking obs", "greedy obs", "knapsack obs", "sensitivity-greedy l1",
        "sensitivity-knapsack l1",
    ]  # fmt: skip
    tails = ("", " at 75% of the budget", " at 50% of the budget")
    every = [kind + tail for tail in tails for kind in kinds]
    origins = [baseline.origin for baseline in found]
    assert origins == [origin for origin in every if origin in origins]
    absent = {origin.split()[0] for origin in every if origin not in origins}
    assert absent <= {"sensitivity-knapsack", "knapsack"}, "left out where it is what greedy found"
    for baseline in found:
        candidate = baseline.candidate or projector.candidate(baseline.point)
        tail = next(tail for tail in reversed(tails) if baseline.origin.endswith(tail))
        share = {"": 1.0, tails[1]: 0.75, tails[2]: 0.5}[tail]
        assert 0.9 * share * limit <= graph.macs.at(candidate.widths) <= share * limit
        criterion = baseline.origin.removesuffix(tail).split()[-1]
        assert {choice.criterion for choice in candidate.choices.values()} == {criterion}
        for parameter in projector.parameters:
            value = baseline.point[parameter.name]
            if isinstance(parameter, ChoiceParameter):
                assert value in parameter.choices
            else:
                assert parameter.low <= float(value) <= parameter.high
        assert (baseline.candidate is None) == (projector.candidate(baseline.point) == candidate)
    uniform = [baseline for baseline in found if baseline.origin.startswith("uniform")]
    assert all(baseline.candidate is None for baseline in uniform), "uniform widths are points of every space"
    cut = {baseline.origin: baseline.candidate or projector.candidate(baseline.point) for baseline in found}
    assert cut["sensitivity-greedy l1"].widths["conv0"] > cut["uniform l1"].widths["conv0"]
