"""From a pruned model to a narrower one: plans and groups of the dense model, as they lie in the smaller tensors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from automl_prune.channels.group import ChannelGroup
from automl_prune.channels.plan import Plan, Slices


def between(before: Plan, after: Plan) -> Slices:
    """The slices that lead from the model of one plan to that of a narrower one: positions in the smaller tensors.

    Slicing the dense model by ``before`` and the result by this equals slicing the dense model by ``after``.
    """
    slices: dict[str, dict[int, tuple[int, ...]]] = {}
    for parameter, axes in after.slices.items():
        for axis, kept in axes.items():
            old = before.slices.get(parameter, {}).get(axis)
            if old != kept:
                found = np.asarray(kept) if old is None else np.searchsorted(old, kept)
                slices.setdefault(parameter, {})[axis] = tuple(found.tolist())
    return slices


def narrowed(group: ChannelGroup, plan: Plan) -> ChannelGroup:
    """The group as it lies in the plan's model: its kept channels at their positions in the smaller tensors."""
    kept = np.asarray(plan.kept[group.name])
    members = []
    for member in group.members:
        positions = plan.slices.get(member.parameter, {}).get(member.axis)
        index = member.index[kept]
        members.append(member if positions is None else replace(member, index=np.searchsorted(positions, index)))
    return replace(group, width=len(kept), members=tuple(members))
