"""Random weights that let a signal through, so that a comparison of outputs means something.

A freshly built deep network often computes next to nothing: norms are the identity, residual branches and layer
scales start at zero, activations die out with depth. Then every pruned model "agrees" with every other.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd


def enliven(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Redraw constant parameters, give every layer's output unit scale, and let batch norms measure their statistics.

    Uses torch's global generator. The model is changed in place and left in evaluation mode.

    Args:
        model: A freshly built model.
        inputs: A few random samples; the first dimension is the batch.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            _redraw(parameter)
        hooks = [m.register_forward_hook(_unit_scale) for m in model.modules() if isinstance(m, (_ConvNd, nn.Linear))]
        model.train()(*inputs)
        for hook in hooks:
            hook.remove()
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average of the passes that follow
        for _ in range(2):
            model(*inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    model.eval()


def _redraw(parameter: nn.Parameter) -> None:
    """A constant parameter (norm scale or shift, layer scale, position embedding) says nothing about index maps."""
    if (
        not parameter.is_floating_point()
        or not parameter.numel()
        or not bool((parameter == parameter.view(-1)[0]).all())
    ):
        return
    if float(parameter.view(-1)[0]) == 0 and parameter.numel() > 1:
        parameter.normal_(0, 0.3)
    else:  # scales, also those that start at 1e-6, and single gains
        parameter.uniform_(0.5, 1.5)


def _unit_scale(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor | None:
    deviation = float(output.std()) if output.numel() > 1 else 0.0
    if not 1e-12 < deviation < 1e12 or hasattr(module, "_enlivened"):
        return None
    module.weight.div_(deviation)
    if module.bias is not None:
        module.bias.div_(deviation)
    result: torch.Tensor = module.forward(*inputs)
    return result
