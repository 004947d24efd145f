"""Criteria against numpy by hand, and the rules they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from automl_prune.channels import ChannelGraph, ChannelGroup, Member
from automl_prune.criteria import (
    CriterionContext,
    criteria,
    filter_rows,
    has_bn_scale,
    keep_best,
    need_of,
    score_groups,
)
from automl_prune.errors import ConfigError, ModelError, PlanError
from automl_prune.registry import Registry
from automl_prune.seeding import seeded
from automl_prune.testing import check_criterion


class Net(nn.Module):
    """A stream written by two convolutions, a depthwise convolution on a branch, a hidden layer after flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 1)
        self.bn_inner = nn.BatchNorm2d(5)
        self.depthwise = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.bn_depthwise = nn.BatchNorm2d(5)
        self.project = nn.Conv2d(5, 6, 1)
        self.hidden = nn.Linear(6 * 4 * 4, 7)
        self.fc = nn.Linear(7, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.stem(x)).relu()
        branch = self.bn_inner(self.inner(x)).relu()
        x = x + self.project(self.bn_depthwise(self.depthwise(branch)).relu())
        out: torch.Tensor = self.fc(self.hidden(x.flatten(1)).relu())
        return out


@pytest.fixture(scope="module")
def net() -> Net:
    with seeded("criteria"):
        net = Net()
        for parameter in net.parameters():
            nn.init.normal_(parameter)
    return net.eval()


@pytest.fixture(scope="module")
def groups(net: Net) -> dict[str, ChannelGroup]:
    graph = ChannelGraph.trace(net, (torch.zeros(2, 3, 4, 4),))
    return {group.name: group for group in graph.groups}


@pytest.fixture(scope="module")
def context(net: Net) -> CriterionContext:
    return CriterionContext.of(net, seed=3)


def rows(net: Net, group: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """By hand: which weights compute each channel."""
    layers: dict[str, list[nn.Conv2d | nn.Linear]] = {
        "stem": [net.stem, net.project],
        "inner": [net.inner, net.depthwise],
        "hidden": [net.hidden],
    }
    weights = [layer.weight.detach().double().numpy() for layer in layers[group]]
    return np.concatenate([weight.reshape(len(weight), -1) for weight in weights], axis=1)


GROUPS = ["stem", "inner", "hidden"]
OF_WEIGHTS = {name for name in criteria if need_of(criteria[name]) == "weights"}


@pytest.mark.parametrize("name", list(criteria))
def test_contract(name: str) -> None:
    check_criterion(name, criteria[name])


def test_the_criteria_of_this_package_are_registered() -> None:
    weights = {"l1", "l2", "geometric_median", "bn_scale", "random"}
    assert weights | {"apoz", "mean_activation", "taylor", "obs", "thinet", "lasso"} <= set(criteria)
    assert {name for name in criteria if need_of(criteria[name]) == "weights"} == weights
    assert [name for name in criteria if need_of(criteria[name]) == "gradients"] == ["taylor"]


@pytest.mark.parametrize("group", GROUPS)
def test_filter_rows_hold_every_weight_that_computes_the_channel(
    net: Net, groups: dict[str, ChannelGroup], context: CriterionContext, group: str
) -> None:
    found, expected = filter_rows(context, groups[group]).numpy(), rows(net, group)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(expected, axis=1))


@pytest.mark.parametrize("group", GROUPS)
def test_magnitudes_by_hand(net: Net, groups: dict[str, ChannelGroup], context: CriterionContext, group: str) -> None:
    by_hand = rows(net, group)
    np.testing.assert_allclose(criteria["l1"](context, groups[group]), np.abs(by_hand).sum(axis=1))
    np.testing.assert_allclose(criteria["l2"](context, groups[group]), np.linalg.norm(by_hand, axis=1))


@pytest.mark.parametrize("group", GROUPS)
def test_geometric_median_by_hand(
    net: Net, groups: dict[str, ChannelGroup], context: CriterionContext, group: str
) -> None:
    by_hand = rows(net, group)
    expected = [sum(float(np.linalg.norm(a - b)) for b in by_hand) for a in by_hand]
    np.testing.assert_allclose(criteria["geometric_median"](context, groups[group]), expected)


def linear_group(weight: torch.Tensor, **more: torch.Tensor) -> tuple[CriterionContext, ChannelGroup]:
    """A group made by hand: the rows of one weight."""
    index = np.arange(len(weight), dtype=np.int64)[:, None]
    member = Member("fc.weight", 0, index, "producer")
    return CriterionContext({"fc.weight": weight, **more}, 0), ChannelGroup("fc", len(weight), (member,))


def test_geometric_median_is_lowest_in_the_middle_where_magnitude_is_not() -> None:
    context, group = linear_group(torch.tensor([[1.0], [10.0], [10.5], [20.0]]))
    assert criteria["geometric_median"](context, group).argmin() == 1
    assert criteria["l1"](context, group).argmin() == 0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_geometric_median_neither_overflows_nor_vanishes(scale: float) -> None:
    context, group = linear_group(torch.tensor([[1.0, 0.0], [0.0, 0.0], [4.0, 0.0]]) * scale)
    np.testing.assert_allclose(criteria["geometric_median"](context, group) / scale, [4.0, 5.0, 7.0], rtol=1e-6)


def test_geometric_median_of_many_equal_filters_is_zero() -> None:
    context, group = linear_group(torch.ones(40, 3))  # 40: beyond where torch.cdist changes its algorithm
    assert criteria["geometric_median"](context, group).max() < 1e-5


def test_bn_scale_by_hand_sums_every_norm_of_the_channel(
    net: Net, groups: dict[str, ChannelGroup], context: CriterionContext
) -> None:
    stem = net.bn.weight.detach().double().abs()
    inner = net.bn_inner.weight.detach().double().abs() + net.bn_depthwise.weight.detach().double().abs()
    np.testing.assert_allclose(criteria["bn_scale"](context, groups["stem"]), stem)
    np.testing.assert_allclose(criteria["bn_scale"](context, groups["inner"]), inner)


def test_bn_scale_scores_groups_without_batchnorm_by_l1_and_says_which(
    groups: dict[str, ChannelGroup], context: CriterionContext
) -> None:
    assert [name for name in GROUPS if has_bn_scale(context, groups[name])] == ["stem", "inner"]
    assert torch.equal(criteria["bn_scale"](context, groups["hidden"]), criteria["l1"](context, groups["hidden"]))


def test_a_norm_without_running_statistics_is_no_batchnorm() -> None:
    index = np.arange(3, dtype=np.int64)[:, None]
    members = (Member("conv.weight", 0, index, "producer"), Member("norm.weight", 0, index, "channelwise"))
    group = ChannelGroup("conv", 3, members)
    tensors = {"conv.weight": torch.tensor([[3.0], [2.0], [1.0]]), "norm.weight": torch.tensor([1.0, 2.0, 3.0])}
    assert not has_bn_scale(CriterionContext(tensors, 0), group)
    tracked = CriterionContext({**tensors, "norm.running_var": torch.ones(3)}, 0)
    assert criteria["bn_scale"](tracked, group).tolist() == [1.0, 2.0, 3.0]


def test_random_depends_on_seed_and_group_name_alone() -> None:
    def draw(seed: int, name: str, weight: float) -> list[float]:
        context, group = linear_group(torch.full((8, 2), weight))
        scores = criteria["random"](CriterionContext(context.parameters, seed), ChannelGroup(name, 8, group.members))
        values: list[float] = scores.tolist()
        return values

    assert draw(0, "a", 1.0) == draw(0, "a", 2.0)
    assert draw(0, "a", 1.0) != draw(1, "a", 1.0)
    assert draw(0, "a", 1.0) != draw(0, "b", 1.0)


@pytest.mark.parametrize("name", sorted(OF_WEIGHTS - {"random"}))
def test_scores_move_with_their_channels(name: str) -> None:
    weight = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    scores = criteria[name](*linear_group(weight))
    torch.testing.assert_close(criteria[name](*linear_group(weight[order])), scores[order])


def test_a_group_of_another_model_is_refused() -> None:
    _, group = linear_group(torch.ones(2, 2))
    with pytest.raises(ModelError, match=r"'fc.weight' is not in the model"):
        criteria["l1"](CriterionContext({"other.weight": torch.ones(2, 2)}, 0), group)


def test_a_group_without_filters_is_refused_by_name() -> None:
    member = Member("bias", 0, np.arange(2, dtype=np.int64)[:, None], "channelwise")
    with pytest.raises(ModelError, match="'embedding' has no weights"):
        criteria["l1"](CriterionContext({"bias": torch.ones(2)}, 0), ChannelGroup("embedding", 2, (member,)))


@pytest.mark.parametrize("name", sorted(OF_WEIGHTS))
def test_scores_of_every_group_have_mean_one(
    groups: dict[str, ChannelGroup], context: CriterionContext, name: str
) -> None:
    scores = score_groups(list(groups.values()), context, name)
    assert list(scores) == list(groups)
    for group, values in scores.items():
        raw = criteria[name](context, groups[group]).double()
        torch.testing.assert_close(values, raw / raw.mean())


def test_scores_that_are_all_zero_become_ones() -> None:
    context, group = linear_group(torch.zeros(3, 2))
    assert score_groups([group], context, "l1")["fc"].tolist() == [1.0, 1.0, 1.0]


def test_normalising_survives_scores_near_the_ends_of_the_number_range() -> None:
    for scale in (1e-320, 1e307):
        context, group = linear_group(torch.tensor([[1.0], [3.0]], dtype=torch.float64) * scale)
        torch.testing.assert_close(
            score_groups([group], context, "l1")["fc"],
            torch.tensor([0.5, 1.5], dtype=torch.float64),
            rtol=1e-3,
            atol=0,
        )


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_an_error_that_names_criterion_and_group(value: float) -> None:
    context, group = linear_group(torch.tensor([[1.0, value], [1.0, 1.0]]))
    with pytest.raises(ModelError, match=r"'l1', group 'fc': 1 of 2 scores are NaN or infinite"):
        score_groups([group], context, "l1")


@pytest.mark.parametrize(
    ("scores", "message"), [(torch.tensor([1.0, -2.0]), "score is -2"), (torch.ones(3), r"\(3,\)")]
)
def test_a_criterion_that_breaks_the_contract_is_refused(
    monkeypatch: pytest.MonkeyPatch, scores: torch.Tensor, message: str
) -> None:
    mine: Registry[object] = Registry("criteria")
    mine.register("broken")(lambda context, group: scores)
    monkeypatch.setattr("automl_prune.criteria.scores.criteria", mine)
    context, group = linear_group(torch.ones(2, 2))
    with pytest.raises(ConfigError, match=message):
        score_groups([group], context, "broken")


def test_an_unknown_criterion_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'geometric_median'"):
        score_groups([], CriterionContext({}, 0), "geometric_medain")


def test_a_context_does_not_follow_its_arguments() -> None:
    tensors = {"a": torch.ones(1)}
    context = CriterionContext(tensors, 0)
    tensors["b"] = torch.ones(1)
    assert list(context.parameters) == ["a"]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_keep_best_keeps_the_highest_and_of_equals_the_first(values: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(values)))
    expected = sorted(sorted(range(len(values)), key=lambda i: (-values[i], i))[:keep])
    assert list(keep_best(torch.tensor(values, dtype=torch.float64), keep)) == expected


@pytest.mark.parametrize("keep", [0, 4, -1])
def test_keep_best_refuses_impossible_numbers(keep: int) -> None:
    with pytest.raises(PlanError, match="keep from 1 to 3"):
        keep_best(torch.ones(3), keep)
