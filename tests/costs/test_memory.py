"""Peak memory: by hand, against a running sum of what torch allocates and frees, and against brute force."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl_prune.channels import ChannelGraph, prune
from automl_prune.costs import LiveTensor, PeakMemory, count_memory
from automl_prune.costs.polynomial import AxisLength, Term
from automl_prune.models import mobilenet_v2, resnet8
from automl_prune.seeding import seeded


class RunningSum(TorchDispatchMode):
    """Adds what operators allocate and takes off what is freed; ``peak`` is the greatest sum."""

    def __init__(self, held: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class carries no annotations
        self.known: dict[int, Any] = {}
        self.now = 0
        self.peak = 0
        for tensor in held:
            self.add(tensor)

    def add(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = id(storage)
        if address not in self.known:
            self.known[address] = weakref.finalize(storage, self.free, address, storage.nbytes())
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def free(self, address: int, size: int) -> None:
        self.now -= size
        del self.known[address]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


def peak(model: nn.Module, image: torch.Tensor) -> int:
    model.eval()
    with torch.no_grad(), RunningSum([*model.parameters(), *model.buffers(), image]) as sums:
        model(image)
    return int(sums.peak)


def test_a_chain_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 4, 3, padding=1))
    held = 4 * (3 * 64 + 8 * 3 * 9 + 8 + 4 * 8 * 9 + 4)  # the input and the parameters
    assert count_memory(model, (torch.rand(2, 3, 8, 8),)) == held + 4 * 64 * (8 + 4), "in place, so one tensor"
    model[1] = nn.ReLU()
    assert count_memory(model, (torch.rand(2, 3, 8, 8),)) == held + 4 * 64 * (8 + 8)
    graph = ChannelGraph.trace(model, (torch.rand(2, 3, 8, 8),))
    assert graph.cost_models["memory"].at({"0": 2}) == 4 * (3 * 64 + 2 * 27 + 2 + 4 * 18 + 4) + 4 * 64 * (2 + 4)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: resnet8(width=8, in_channels=3),
        lambda: mobilenet_v2(width=0.25),
        lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),  # splits, concatenations, views
        lambda: torchvision.models.DenseNet(8, (2, 3), 16, num_classes=10),
        lambda: torchvision.models.googlenet(num_classes=5, init_weights=False),  # branches, auxiliary heads
    ],
)
def test_predicted_peaks_are_those_of_the_pruned_model(factory: Any) -> None:
    with seeded("memory"):
        model, image = factory(), torch.rand(1, 3, 32, 32)
        graph = ChannelGraph.trace(model, (image,))
        for _ in range(3):
            widths = {group.name: int(torch.randint(1, group.width + 1, ())) for group in graph.groups}
            plan = graph.plan({name: range(width) for name, width in widths.items()})
            small = prune(model, plan)
            assert plan.costs()["memory"].value == peak(small, image) == count_memory(small, (image,))


@st.composite
def lives(draw: st.DrawFn) -> tuple[LiveTensor, ...]:
    axis = st.builds(AxisLength, st.integers(0, 9), st.dictionaries(st.sampled_from("ab"), st.integers(1, 4)))
    term = st.builds(Term, st.just(""), st.integers(0, 64), st.lists(axis, max_size=2).map(tuple))
    tensors = []
    for _ in range(draw(st.integers(1, 8))):
        first = draw(st.integers(0, 9))
        tensors.append(LiveTensor(draw(term), first, draw(st.none() | st.integers(first, 12))))
    return tuple(tensors)


@given(lives(), st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=1, max_size=3))
def test_the_peak_is_the_greatest_sum_at_any_time(tensors: tuple[LiveTensor, ...], many: list[tuple[int, int]]) -> None:
    def brute_force(widths: dict[str, int]) -> int:
        return max(
            sum(t.bytes.at(widths) for t in tensors if t.first <= time and (t.last is None or time <= t.last))
            for time in range(14)
        )

    cost = PeakMemory(("a", "b"), tensors)
    expected = [brute_force({"a": a, "b": b}) for a, b in many]
    assert cost.evaluate_all(np.array(many)).tolist() == expected
    assert [cost.evaluate(widths) for widths in many] == expected
    assert cost.at({"a": many[0][0], "b": many[0][1]}) == expected[0]
    wider = np.array(many) + np.array([0, 1])
    assert (cost.evaluate_all(wider) >= expected).all(), "monotone"


def test_a_constant_that_the_model_holds_counts_all_the_time() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.scale = nn.Conv2d(3, 8, 1), torch.rand(1000)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.as_tensor(self.first(x).sum() * self.scale.sum())

    image = torch.rand(1, 3, 4, 4)
    assert count_memory(Scaled(), (image,)) == 4 * (48 + 24 + 8 + 1000 + 16 * 8 + 1)
