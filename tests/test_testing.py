"""The contract suites catch what they are for."""

from __future__ import annotations

import pytest
import torch

from automl_prune.channels import ChannelGroup
from automl_prune.criteria import Criterion, CriterionContext, filter_rows
from automl_prune.testing import check_criterion


def _global_random(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    return torch.rand(group.width)


def _in_place(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    member = next(group.with_role("producer"))
    context.parameters[member.parameter].data.abs_()
    return torch.ones(group.width)


def _divided(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
    magnitude = filter_rows(context, group).abs().sum(dim=1)
    return magnitude / magnitude.sum()


BROKEN: dict[str, tuple[Criterion, str]] = {
    "global state": (_global_random, "global random state"),
    "in place": (_in_place, "changed the model"),
    "zero weights": (_divided, "not finite"),
    "shape": (lambda context, group: torch.ones(group.width + 1), "shape"),
    "type": (lambda context, group: torch.ones(group.width, dtype=torch.int64), "floating"),
    "negative": (lambda context, group: -torch.ones(group.width), "negative"),
    "gradient": (lambda context, group: torch.ones(group.width, requires_grad=True), "gradient"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_criteria_are_caught(name: str) -> None:
    criterion, message = BROKEN[name]
    with pytest.raises(AssertionError, match=message):
        check_criterion(name, criterion)


def test_a_criterion_that_remembers_is_caught() -> None:
    calls: list[int] = []

    def counting(context: CriterionContext, group: ChannelGroup) -> torch.Tensor:
        calls.append(1)
        return torch.full((group.width,), float(len(calls)))

    with pytest.raises(AssertionError, match="second call"):
        check_criterion("counting", counting)


def test_a_sound_criterion_passes() -> None:
    check_criterion("ones", lambda context, group: torch.ones(group.width))
