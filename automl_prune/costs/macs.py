"""Independent counts on a built model: what the polynomials are checked against, and what exports report."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from automl_prune.costs.modes import evaluating
from automl_prune.costs.unfused import unfused


def count_macs(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> int:
    """Multiply-accumulates per sample of one forward pass, by torch's own operator formulas (1 MAC = 2 FLOPs).

    Counts convolutions and matrix products, those of attention too, as the literature does. The model's
    mode is restored.

    Args:
        model: Any module; not changed.
        example_inputs: Positional inputs whose first dimension is the batch; the first sample is run, as work that
            does not depend on the batch (a product of two weights) cannot be told from the rest in more.
    """
    sample = tuple(tensor[:1] for tensor in example_inputs)
    with evaluating(model), torch.no_grad(), unfused(), FlopCounterMode(display=False) as counter:
        model(*sample)
    return int(counter.get_total_flops()) // 2


def count_params(model: nn.Module) -> int:
    """Number of parameters, tied ones once; buffers are not parameters."""
    return sum(parameter.numel() for parameter in model.parameters())
