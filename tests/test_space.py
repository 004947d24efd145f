"""Search spaces: what YAML may say, the parameters it gives, and the widths it allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, ValidationError

from automl_prune.channels import ChannelGroup
from automl_prune.errors import ConfigError
from automl_prune.space import ChoiceParameter, FloatParameter, Space, WidthLimits, explain

SPACES = Path(__file__).parents[1] / "search_spaces"


def groups(**widths: int) -> tuple[ChannelGroup, ...]:
    return tuple(ChannelGroup(name.replace("_", "."), width, ()) for name, width in widths.items())


def parse(**values: Any) -> Space:
    return Space.parse(values, source="space.yaml")


def test_the_default_space_is_the_one_in_the_file_that_explains_it() -> None:
    assert Space.load(SPACES / "per_group.yaml") == Space()


@pytest.mark.parametrize("path", sorted(SPACES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_space_is_valid(path: Path) -> None:
    space = Space.load(path)
    assert "target_cost" in {parameter.name for parameter in space.parameters(["a", "b"])}
    assert set(space.limits(groups(a=16, b=64))) == {"a", "b"}
    assert Space.parse(space.model_dump(mode="json"), source="a study") == space, "workers get it from the study"


def test_parameters_with_one_criterion_for_all() -> None:
    space = parse(criteria=["l1", "random"], target_cost=0.6, importance_exponent=[-1, 2], residual=0.3)
    assert space.parameters(["x", "y"]) == (
        FloatParameter("target_cost", 0.6, 1.0),
        ChoiceParameter("allocation", ("uniform", "global", "greedy", "knapsack")),
        FloatParameter("importance_exponent", -1.0, 2.0),
        FloatParameter("residual/x", -0.3, 0.3),
        FloatParameter("residual/y", -0.3, 0.3),
        ChoiceParameter("criterion", ("l1", "random")),
    )


def test_parameters_with_a_criterion_per_group_leave_out_excluded_groups() -> None:
    space = parse(criteria=["l1", "l2"], criterion_scope="group", exclude=["y*"], importance_exponent=[0, 0])
    names = [parameter.name for parameter in space.parameters(["x", "y1", "z"])]
    assert names == ["target_cost", "allocation", "residual/x", "residual/z", "criterion/x", "criterion/z"]


def test_parameters_of_coefficients_and_of_stages() -> None:
    space = parse(criteria=["l1"], coefficient=2.0, depth_slope=0.4)
    assert space.parameters(["x", "y"]) == (
        FloatParameter("target_cost", 0.7, 1.0),
        FloatParameter("depth_slope", -0.4, 0.4),
        FloatParameter("coefficient/x", -2.0, 2.0),
        FloatParameter("coefficient/y", -2.0, 2.0),
    )
    stages = {"x": "stage1", "y": "stage1", "z": "stage2"}
    by_stage = parse(criteria=["l1"], scope="stage", importance_exponent=[0, 0], exclude=["z"])
    names = [parameter.name for parameter in by_stage.parameters(list(stages), stages)]
    assert names == ["target_cost", "allocation", "residual/stage1"]


def test_parameters_with_nothing_to_choose_are_left_out() -> None:
    space = parse(criteria=["l2"], allocations=["knapsack"], residual=0, importance_exponent=[0, 0])
    assert [parameter.name for parameter in space.parameters(["x"])] == ["target_cost"]


def test_limits_of_groups_excluded_and_bounded() -> None:
    space = parse(
        round_to=8, min_width=4, max_prune_ratio=0.75, exclude=["fc"],
        bounds={"layer*": {"min_width": 20}, "layer2": {"round_to": 1, "max_prune_ratio": 0.5}},
    )  # fmt: skip
    assert space.limits(groups(stem=16, layer1=64, layer2=64, fc=100)) == {
        "stem": WidthLimits(8, 16, 8),
        "layer1": WidthLimits(24, 64, 8),
        "layer2": WidthLimits(32, 64, 1),
        "fc": WidthLimits(100, 100, 1),
    }


def test_later_patterns_win_key_by_key() -> None:
    space = parse(bounds={"a": {"min_width": 3, "round_to": 2}, "*": {"min_width": 8}}, max_prune_ratio=1.0)
    assert space.limits(groups(a=16))["a"] == WidthLimits(8, 16, 2)


@pytest.mark.parametrize("values", [{"exclude": ["layre1*"]}, {"bounds": {"layre1*": {"min_width": 3}}}])
def test_a_pattern_without_a_match_names_the_nearest_group(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'layre1\*' matches no channel group; did you mean 'layer1'"):
        parse(**values).limits(groups(layer1=8, fc=8))


def test_names_with_dots_and_brackets_are_matched_as_they_are() -> None:
    names = [ChannelGroup("Layer1.0", 8, ()), ChannelGroup("layer1.0", 8, ())]
    limits = parse(exclude=["layer1.*"]).limits(names)
    assert limits["layer1.0"].low == 8
    assert limits["Layer1.0"].low < 8


@given(st.integers(1, 300), st.integers(1, 33), st.integers(1, 40), st.integers(0, 100))
def test_width_limits_honour_all_rules_jointly(width: int, round_to: int, min_width: int, percent: int) -> None:
    limits = WidthLimits.of(width, round_to=round_to, min_width=min_width, max_prune_ratio=percent / 100)
    allowed = limits.widths()
    # In whole numbers, from the rules: nobody removes more than percent of the channels.
    expected = {
        kept
        for kept in range(1, width + 1)
        if kept == width or (kept % round_to == 0 and kept >= min_width and (width - kept) * 100 <= percent * width)
    }
    assert set(allowed) == expected
    assert list(allowed) == sorted(set(allowed))


@pytest.mark.parametrize(
    ("width", "ratio", "low"), [(10, 0.7, 3), (10, 0.9, 1), (100, 0.29, 71), (3, 0.5, 2), (7, 1.0, 1)]
)
def test_float_noise_does_not_move_the_lowest_width(width: int, ratio: float, low: int) -> None:
    assert WidthLimits.of(width, round_to=1, min_width=1, max_prune_ratio=ratio).low == low


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"criterai": ["l1"]}, "unknown key 'criterai'; did you mean 'criteria'"),
        ({"bounds": {"a": {"min_widht": 2}}}, r"unknown key 'bounds.a.min_widht'; did you mean 'min_width'"),
        ({"criteria": ["l3"]}, "'l3'; did you mean"),
        ({"criteria": ["l1", "l1"]}, "listed twice"),
        ({"criteria": []}, "criteria"),
        ({"criteria": "l1"}, r"criteria: .*got 'l1'"),
        ({"target_cost": 0}, "target_cost: .*got 0"),
        ({"target_cost": 1.5}, "target_cost: .*got 1.5"),
        ({"target_cost": "0.5"}, "target_cost: .*got '0.5'"),
        ({"target_cost": float("nan")}, "target_cost: "),
        ({"importance_exponent": [1, 2]}, "low <= 0 <= high"),
        ({"importance_exponent": [0, float("inf")]}, "low <= 0 <= high"),
        ({"importance_exponent": 2}, "importance_exponent"),
        ({"residual": -1}, "residual"),
        ({"coefficient": 2.0, "residual": 0.1}, "coefficient takes the place of residual; leave out one"),
        ({"coefficient": 0.0}, "coefficient"),
        ({"scope": "layer"}, "scope: .*'group' or 'stage'"),
        ({"round_to": 0}, "round_to"),
        ({"round_to": 1.5}, "round_to"),
        ({"round_to": True}, "round_to"),
        ({"min_width": 0}, "min_width"),
        ({"max_prune_ratio": 1.1}, "max_prune_ratio"),
        ({"criterion_scope": "layer"}, "criterion_scope: .*'all' or 'group'"),
    ],
)  # fmt: skip
def test_wrong_values_name_file_key_and_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(**values)
    assert str(error.value).startswith("space.yaml: ")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse(round_to=0, min_width=0)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("text", ["- a\n- b\n", "words"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"s\.yaml"):
        Space.load(path)


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("# nothing\n")
    assert Space.load(path) == Space()


def test_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        Space.load(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("criteria: [l1")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 1, column 14: not valid YAML"):
        Space.load(broken)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match=r"binary\.yaml"):
        Space.load(binary)


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    threads: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    latency: Inner | None = None
    name: str


def test_explain_finds_the_keys_of_nested_models_and_missing_ones() -> None:
    with pytest.raises(ValidationError) as error:
        Outer.model_validate({"latency": {"thread": 2}})
    first, second = explain(error.value, Outer, "c.yaml").splitlines()
    assert first == "c.yaml: unknown key 'latency.thread'; did you mean 'threads'?"
    assert second == "c.yaml: key 'name' is missing; add it"
