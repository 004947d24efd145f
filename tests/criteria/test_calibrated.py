"""Criteria of statistics against activations taken from the modules themselves, and exact regressions on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Lasso
from torch import nn

from automl_prune.calibration import Calibration, CalibrationSettings, collect, with_gradients
from automl_prune.channels import ChannelGraph, ChannelGroup
from automl_prune.criteria import (
    Criterion,
    CriterionContext,
    consumers,
    criteria,
    is_measured,
    keep_best,
    need_of,
    needs,
    score_groups,
)
from automl_prune.errors import ConfigError
from automl_prune.seeding import derive_seed, seeded
from automl_prune.tasks import Task

CPU = torch.device("cpu")
SAMPLES = 64
CALIBRATED = sorted(name for name in criteria if need_of(criteria[name]) != "weights")
Array = NDArray[np.float64]


class Net(nn.Module):
    """A stream with two readers, a depthwise and a grouped convolution on a branch, a hidden layer after flatten."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(6, 4, 3, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.grouped = nn.Conv2d(4, 6, 1, groups=2)
        self.hidden = nn.Linear(6 * 4 * 4, 7)
        self.fc = nn.Linear(7, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        branch = self.depthwise(self.inner(x).relu()).relu()
        x = (x + self.grouped(branch)).relu()
        out: torch.Tensor = self.fc(self.hidden(x.flatten(1)).relu())
        return out


@pytest.fixture(scope="module")
def net() -> Net:
    with seeded("calibrated criteria"):
        net = Net().eval()
    with torch.no_grad():
        net.hidden.bias.add_(3.0)  # no dead channels: of equals there is no order to compare
    return net


@pytest.fixture(scope="module")
def calibration(net: Net, digits_task: Task) -> Calibration:
    settings = CalibrationSettings(samples=SAMPLES, positions=10_000, gradient_samples=SAMPLES)
    return with_gradients(collect(net, digits_task, settings, device=CPU), net, digits_task, device=CPU)


@pytest.fixture(scope="module")
def groups(net: Net, digits_task: Task) -> Mapping[str, ChannelGroup]:
    return {group.name: group for group in ChannelGraph.trace(net, digits_task.example_inputs).groups}


@pytest.fixture(scope="module")
def context(net: Net, calibration: Calibration) -> CriterionContext:
    return CriterionContext.of(net, calibration=calibration)


@pytest.fixture(scope="module")
def read(net: Net, digits_task: Task) -> Mapping[str, torch.Tensor]:
    """What every layer reads, from forward hooks, with the gradients of the summed loss."""
    images, labels = next(iter(digits_task.batches("train", shuffle=derive_seed("calibration", 0))))
    found: dict[str, torch.Tensor] = {}

    def keep(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            inputs[0].retain_grad()
            found[name] = inputs[0]

        return hook

    handles = [
        module.register_forward_pre_hook(keep(name))  # type: ignore[arg-type]  # a hook that returns nothing
        for name, module in net.named_children()
    ]
    F.cross_entropy(net(images[:SAMPLES].clone().requires_grad_()), labels[:SAMPLES], reduction="sum").backward()
    for handle in handles:
        handle.remove()
    net.zero_grad(set_to_none=True)
    return found


# by group: the layers that read it, and the positions of each channel among the layer's inputs
READERS: dict[str, dict[str, list[list[int]]]] = {
    "stem": {
        "inner": [[0, 3], [1, 4], [2, 5]],
        "hidden": [[*range(16 * c, 16 * c + 16), *range(16 * c + 48, 16 * c + 64)] for c in range(3)],
    },
    "inner": {"grouped": [[0, 2], [1, 3]]},
    "hidden": {"fc": [[c] for c in range(7)]},
}


def values(read: Mapping[str, torch.Tensor], group: str, layer: str, *, gradient: bool = False) -> list[list[Array]]:
    """What a layer reads, by channel and position of the channel, each of shape (samples, spatial positions)."""
    x = read[layer].grad if gradient else read[layer]
    assert x is not None
    flat = x.detach().double().reshape(len(x), x.shape[1], -1).numpy()
    return [[flat[:, position] for position in positions] for positions in READERS[group][layer]]


def test_the_groups_are_those_the_references_speak_of(
    groups: Mapping[str, ChannelGroup], context: CriterionContext
) -> None:
    assert {name: group.width for name, group in groups.items()} == {"stem": 3, "inner": 2, "hidden": 7}
    for name, group in groups.items():
        assert [f"{layer}.weight" for layer in READERS[name]] == [
            consumer.statistics.parameter for consumer in consumers(context, group)
        ]


@pytest.mark.parametrize("group", READERS)
def test_zeros_and_means_of_what_the_readers_see(
    group: str, groups: Mapping[str, ChannelGroup], context: CriterionContext, read: Mapping[str, torch.Tensor]
) -> None:
    channels = [values(read, group, layer) for layer in READERS[group]]
    zeros = np.mean([[np.mean([np.mean(x == 0) for x in channel]) for channel in layer] for layer in channels], axis=0)
    means = np.mean([[np.mean([abs(np.mean(x)) for x in channel]) for channel in layer] for layer in channels], axis=0)
    np.testing.assert_allclose(criteria["apoz"](context, groups[group]), 1 - zeros, rtol=1e-5)
    np.testing.assert_allclose(criteria["mean_activation"](context, groups[group]), means, rtol=1e-5)


@pytest.mark.parametrize("group", READERS)
def test_taylor_is_normalised_in_every_reader(
    group: str, groups: Mapping[str, ChannelGroup], context: CriterionContext, read: Mapping[str, torch.Tensor]
) -> None:
    expected = []
    for layer in READERS[group]:
        pairs = zip(values(read, group, layer), values(read, group, layer, gradient=True), strict=True)
        products = [
            [np.abs((x * gradient).mean(axis=1)).mean() for x, gradient in zip(*pair, strict=True)] for pair in pairs
        ]
        sizes = np.mean(products, axis=1)
        expected.append(sizes / np.linalg.norm(sizes))
    np.testing.assert_allclose(criteria["taylor"](context, groups[group]), np.mean(expected, axis=0), rtol=1e-4)


class Regression:
    """One part of a layer, as explicit centred samples: inputs (rows, n), weights (outputs, n), columns by channel."""

    def __init__(self, inputs: Array, weight: Array, columns: list[list[int]]) -> None:
        self.inputs, self.weight, self.columns = inputs - inputs.mean(axis=0), weight, columns
        self.variance = float(((self.inputs @ weight.T) ** 2).sum()) / len(inputs)

    def loss(self, removed: list[int]) -> float:
        """Mean squared error of the best weights without some channels, damped by extra samples."""
        rows, n = self.inputs.shape
        damping = np.sqrt(0.01 * (self.inputs**2).mean() * rows) * np.eye(n)
        design = np.concatenate([self.inputs, damping])
        target = design @ self.weight.T
        gone = [column for channel in removed for column in self.columns[channel]]
        kept = np.setdiff1d(np.arange(n), gone)
        fitted = design[:, kept] @ np.linalg.lstsq(design[:, kept], target, rcond=None)[0] if len(kept) else 0
        return float(((target - fitted) ** 2).sum()) / float(rows)

    def contribution(self, channel: int) -> Array:
        """What one channel adds to the outputs, shape (rows, outputs)."""
        return np.asarray(self.inputs[:, self.columns[channel]] @ self.weight[:, self.columns[channel]].T)


def regressions(net: Net, read: Mapping[str, torch.Tensor], group: str) -> list[list[Regression]]:
    """By reader and part."""
    found = []
    for layer, positions in READERS[group].items():
        x: torch.Tensor = read[layer].detach()
        weight: Array = net.get_parameter(f"{layer}.weight").detach().double().numpy()
        if layer == "inner":
            patches = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double().numpy()
            columns = [[9 * p + tap for p in channel for tap in range(9)] for channel in positions]
            found.append([Regression(patches, weight.reshape(4, -1), columns)])
        elif layer == "grouped":
            pixels = x.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
            parts = zip(np.split(pixels, 2, axis=1), np.split(weight.reshape(6, 2), 2), strict=True)
            found.append([Regression(inputs, part, [[0], [1]]) for inputs, part in parts])
        else:
            found.append([Regression(x.double().numpy(), weight, positions)])
    return found


@pytest.mark.parametrize("group", READERS)
def test_obs_removes_what_exact_regressions_miss_least(
    net: Net,
    group: str,
    groups: Mapping[str, ChannelGroup],
    context: CriterionContext,
    read: Mapping[str, torch.Tensor],
) -> None:
    layers = regressions(net, read, group)
    scores = criteria["obs"](context, groups[group]).numpy()
    removed: list[int] = []
    last = highest = 0.0
    for _ in scores:
        losses = {
            channel: sum(
                sum(part.loss([*removed, channel]) for part in parts) / sum(part.variance for part in parts)
                for parts in layers
            )
            for channel in range(len(scores))
            if channel not in removed
        }
        best = min(losses, key=lambda channel: losses[channel])
        highest = max(highest, losses[best] - last)
        np.testing.assert_allclose(scores[best], highest, rtol=1e-3)
        removed.append(best)
        last = losses[best]
    assert removed == np.argsort(scores).tolist()


def _stacked(layers: list[list[Regression]], width: int) -> Array:
    """Every channel's contributions to all outputs in relative units, shape (width, values)."""
    return np.stack(
        [
            np.concatenate(
                [
                    part.contribution(channel).ravel() / np.sqrt(len(part.inputs) * sum(p.variance for p in parts))
                    for parts in layers
                    for part in parts
                ]
            )
            for channel in range(width)
        ]
    )


@pytest.mark.parametrize("group", READERS)
def test_thinet_removes_the_least_contribution(
    net: Net,
    group: str,
    groups: Mapping[str, ChannelGroup],
    context: CriterionContext,
    read: Mapping[str, torch.Tensor],
) -> None:
    scores = criteria["thinet"](context, groups[group]).numpy()
    stacked = _stacked(regressions(net, read, group), len(scores))
    removed: list[int] = []
    for _ in scores:
        left = [channel for channel in range(len(scores)) if channel not in removed]
        removed.append(min(left, key=lambda channel: float((stacked[[*removed, channel]].sum(axis=0) ** 2).sum())))
    assert removed == np.argsort(scores).tolist()
    np.testing.assert_allclose(scores[removed[0]], (stacked[removed[0]] ** 2).sum(), rtol=1e-3)


@pytest.mark.parametrize("group", READERS)
def test_lasso_keeps_the_set_of_the_lasso_at_every_width(
    net: Net,
    group: str,
    groups: Mapping[str, ChannelGroup],
    context: CriterionContext,
    read: Mapping[str, torch.Tensor],
) -> None:
    scores = criteria["lasso"](context, groups[group])
    stacked = _stacked(regressions(net, read, group), len(scores))
    penalties = scores.sort().values.tolist()
    for keep in range(1, len(penalties)):
        penalty = (penalties[-keep] + penalties[-keep - 1]) / 2 / stacked.shape[1]
        model = Lasso(alpha=penalty, fit_intercept=False, tol=1e-10, max_iter=100_000)
        model.fit(stacked.T, stacked.sum(axis=0))
        assert tuple(np.flatnonzero(model.coef_)) == keep_best(scores, keep)


@pytest.mark.parametrize("name", ["obs", "thinet", "lasso"])
def test_moments_too_large_to_collect_leave_variances(
    name: str, groups: Mapping[str, ChannelGroup], context: CriterionContext, calibration: Calibration, net: Net
) -> None:
    layer = calibration.layers["fc.weight"]
    layers = {**calibration.layers, "fc.weight": replace(layer, covariance=None)}
    without = CriterionContext(context.parameters, 0, replace(calibration, layers=layers))
    scores = criteria[name](without, groups["hidden"]).numpy()
    variance = layer.channel_variance[0].double().numpy()
    losses = (net.fc.weight.detach().double().numpy() ** 2).sum(axis=0) * variance
    assert np.argsort(scores).tolist() == np.argsort(losses).tolist()
    np.testing.assert_allclose(scores, losses / losses.sum(), rtol=1e-5)


@pytest.mark.parametrize("name", CALIBRATED)
def test_a_group_no_measured_layer_reads_is_scored_by_l1(
    name: str, groups: Mapping[str, ChannelGroup], context: CriterionContext, calibration: Calibration
) -> None:
    layers = {key: layer for key, layer in calibration.layers.items() if key != "fc.weight"}
    without = CriterionContext(context.parameters, 0, replace(calibration, layers=layers))
    assert [g for g in groups if not is_measured(without, groups[g])] == ["hidden"]
    assert torch.equal(criteria[name](without, groups["hidden"]), criteria["l1"](context, groups["hidden"]))


@pytest.mark.parametrize("name", CALIBRATED)
def test_without_what_it_needs_a_criterion_says_so(
    name: str, net: Net, groups: Mapping[str, ChannelGroup], calibration: Calibration
) -> None:
    nothing = CriterionContext.of(net)
    with pytest.raises(ConfigError, match=f"'{name}' needs .*; collect a calibration"):
        score_groups(list(groups.values()), nothing, name)
    with pytest.raises(ConfigError, match="no calibration"):
        criteria[name](nothing, groups["stem"])
    if need_of(criteria[name]) == "gradients":
        statistics = CriterionContext.of(net, calibration=replace(calibration, gradient_samples=0))
        with pytest.raises(ConfigError, match="with_gradients"):
            score_groups(list(groups.values()), statistics, name)
        with pytest.raises(ConfigError, match="with_gradients"):
            criteria[name](statistics, groups["stem"])


def test_a_third_party_declares_its_need() -> None:
    def plain(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
        return torch.ones(group.width)

    other: Criterion = needs("statistics")(lambda context, group: torch.ones(group.width))
    assert need_of(plain) == "weights"
    assert need_of(other) == "statistics"


@pytest.mark.parametrize("name", CALIBRATED)
def test_scores_have_mean_one(name: str, groups: Mapping[str, ChannelGroup], context: CriterionContext) -> None:
    for group, scores in score_groups(list(groups.values()), context, name).items():
        raw = criteria[name](context, groups[group])
        torch.testing.assert_close(scores, raw / raw.mean())
