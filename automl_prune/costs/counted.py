"""What a built model costs, counted independently of its plan, and whether that is what the plan says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from automl_prune.costs.base import Cost
from automl_prune.costs.macs import count_macs, count_params
from automl_prune.costs.memory import count_memory


def count_costs(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Multiply-accumulates, parameters and peak memory, by metric.

    Args:
        model: Any module; not changed.
        example_inputs: Positional inputs whose first dimension is the batch.
    """
    return {
        "macs": count_macs(model, example_inputs),
        "params": count_params(model),
        "memory": count_memory(model, example_inputs),
    }


def contradiction(counted: Mapping[str, int], planned: Mapping[str, Cost]) -> str | None:
    """In what counts contradict a plan, in words; None when they do not.

    Counts must equal the plan's, but memory may be less: the plan's is an upper bound where a tensor's size is not
    known to follow the widths. It may not be more, since a budget rests on it.
    """
    for name, count in counted.items():
        plan = planned[name].value
        if count > plan or (count < plan and name != "memory"):
            return f"has {count:,} {name}, its plan says {plan:,.0f}"
    return None
