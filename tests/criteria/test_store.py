"""Scores on disk are used when they are of the same thing, and made anew when they are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, collect
from automl_prune.channels import ChannelGraph, ChannelGroup
from automl_prune.criteria import CriterionContext, criteria, load_or_score, needs, score_groups
from automl_prune.errors import ConfigError
from automl_prune.files import load_tensors, save_tensors
from automl_prune.tasks import Task
from tests.views import Recorder

NAMES = ("l1", "obs", "apoz")


def computed(view: Recorder) -> list[str]:
    """The criteria whose stages a view has seen."""
    return [title.rpartition(" ")[2] for title in view.stages]


@pytest.fixture
def graph(tiny_resnet: nn.Module, digits_task: Task) -> ChannelGraph:
    return ChannelGraph.trace(tiny_resnet.eval(), digits_task.example_inputs)


@pytest.fixture
def context(tiny_resnet: nn.Module, digits_task: Task) -> CriterionContext:
    settings = CalibrationSettings(samples=64)
    statistics = collect(tiny_resnet.eval(), digits_task, settings, device=torch.device("cpu"))
    return CriterionContext.of(tiny_resnet, calibration=statistics)


def _calibration(context: CriterionContext) -> Calibration:
    assert context.calibration is not None
    return context.calibration


def test_costly_scores_are_computed_once(graph: ChannelGraph, context: CriterionContext, tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    first, again, more = Recorder(), Recorder(), Recorder()
    scores = load_or_score(path, graph, context, NAMES, first)
    assert computed(first) == list(NAMES)
    for name in NAMES:
        for group, values in score_groups(graph.groups, context, name).items():
            assert torch.equal(scores[name][group], values)
    read = load_or_score(path, graph, context, NAMES, again)
    assert computed(again) == ["l1"]  # no time to win
    assert again.said == []
    assert {name: {g: t.tolist() for g, t in groups.items()} for name, groups in read.items()} == {
        name: {g: t.tolist() for g, t in groups.items()} for name, groups in scores.items()
    }
    load_or_score(path, graph, context, ["obs", "thinet"], more)
    assert computed(more) == ["thinet"]
    kept = {key.partition("|")[0] for key in load_tensors(path)[0]}
    assert kept == {"obs", "apoz", "thinet"}


@pytest.mark.parametrize("change", ["model", "data", "settings", "groups"])
def test_scores_of_something_else_are_made_anew(
    graph: ChannelGraph, context: CriterionContext, tmp_path: Path, change: str
) -> None:
    path, view = tmp_path / "scores.safetensors", Recorder()
    load_or_score(path, graph, context, ["apoz"])
    calibration = _calibration(context)
    other = {
        "model": replace(calibration, model="0" * 64),
        "data": replace(calibration, data="0" * 64),
        "settings": replace(calibration, settings=CalibrationSettings(samples=65)),
        "groups": calibration,
    }[change]
    if change == "groups":
        graph = graph.without({graph.groups[0].name: "a test"})
    scores = load_or_score(path, graph, replace(context, calibration=other), ["apoz"], view)
    assert computed(view) == ["apoz"]
    assert "of another model, data or settings" in view.said[0]
    assert list(scores["apoz"]) == [group.name for group in graph.groups]
    load_or_score(path, graph, replace(context, calibration=other), ["apoz"], view)
    assert computed(view) == ["apoz"]  # written anew


def test_a_damaged_file_is_made_anew(graph: ChannelGraph, context: CriterionContext, tmp_path: Path) -> None:
    path, view = tmp_path / "scores.safetensors", Recorder()
    path.write_bytes(b"torn")
    whole = load_or_score(path, graph, context, ["apoz"], view)
    assert "not a complete safetensors file" in view.said[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    again = load_or_score(path, graph, context, ["apoz"], view)
    assert "is damaged" in view.said[1]
    assert all(torch.equal(again["apoz"][name], scores) for name, scores in whole["apoz"].items())
    assert load_tensors(path)[0].keys() == {f"apoz|{group.name}" for group in graph.groups}


def test_an_incomplete_criterion_is_computed(graph: ChannelGraph, context: CriterionContext, tmp_path: Path) -> None:
    path, view = tmp_path / "scores.safetensors", Recorder()
    load_or_score(path, graph, context, ["apoz"])
    tensors, metadata = load_tensors(path)
    tensors.popitem()
    save_tensors(path, tensors, metadata)
    assert len(load_or_score(path, graph, context, ["apoz"], view)["apoz"]) == len(graph.groups)
    assert computed(view) == ["apoz"]
    load_or_score(path, graph, context, ["apoz"], view)
    assert computed(view) == ["apoz"]


def test_a_third_partys_scores_are_not_kept(
    graph: ChannelGraph, context: CriterionContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @needs("statistics")
    def theirs(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
        return torch.ones(group.width)

    monkeypatch.setitem(criteria._known, "theirs", theirs)
    load_or_score(tmp_path / "scores.safetensors", graph, context, ["theirs"])
    assert not list(tmp_path.iterdir())


def test_without_a_calibration_it_says_what_is_missing(graph: ChannelGraph, tiny_resnet: nn.Module) -> None:
    with pytest.raises(ConfigError, match="'obs' needs statistics"):
        load_or_score(None, graph, CriterionContext.of(tiny_resnet), ["obs"])
