"""Unstructured pruning: single weights set to zero by the methods of ``torch.nn.utils.prune``; shapes stay.

Such zeros do not speed up dense kernels, which multiply by them like by any other number. They make a compressed
file smaller, and are what sparse runtimes start from.
"""

from __future__ import annotations

import copy
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from automl_prune.errors import ConfigError, ModelError
from automl_prune.factories import import_function
from automl_prune.registry import nearest
from automl_prune.seeding import seeded
from automl_prune.tasks.base import Score

WEIGHT = "weight"
"""The parameter of a layer that is masked."""


def _structured(module: nn.Module, name: str, amount: float) -> None:
    torch_prune.ln_structured(module, name, amount, n=2, dim=0)


LAYERWISE: dict[str, Callable[[nn.Module, str, float], object]] = {
    "random": torch_prune.random_unstructured,
    "l1": torch_prune.l1_unstructured,
    "ln_structured": _structured,
}
"""Methods that take the same share of every layer: random weights, the smallest, whole filters of least L2 norm."""
GLOBAL = "global"
"""The smallest weights of all layers together, by absolute value."""


@dataclass(frozen=True, slots=True)
class Masking:
    """Which weights become zero.

    Attributes:
        amount: Share of the weights, in (0, 1).
        method: ``"random"``, ``"l1"``, ``"ln_structured"``, ``"global"``, or ``"package.module:name"`` of a user's
            function ``(module, name, amount)`` in the manner of ``torch.nn.utils.prune``, or of a
            ``BasePruningMethod``.
        layers: Names of the modules to mask; empty for all with a weight of two or more dimensions.
        seed: Of random methods.
    """

    amount: float
    method: str = "l1"
    layers: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.amount < 1:
            raise ConfigError(f"amount is {self.amount}; choose the share of weights to set to zero, between 0 and 1")
        if ":" not in self.method and self.method not in (*LAYERWISE, GLOBAL):
            known = nearest(self.method, (*LAYERWISE, GLOBAL))
            raise ConfigError(f"method {self.method!r} is unknown; {known} Or give a function as package.module:name")


@dataclass(frozen=True, slots=True)
class LayerZeros:
    """How many of a layer's weights are zero."""

    layer: str
    weights: int
    zeros: int

    @property
    def share(self) -> float:
        """Zeros of weights, in [0, 1]."""
        return self.zeros / self.weights


@dataclass(frozen=True, slots=True)
class Stage:
    """The model's scores after one step of the work, the first being the dense model's."""

    name: str
    val: Score
    test: Score


@dataclass(frozen=True, slots=True)
class FileSize:
    """A file's size in bytes, as it is and after zlib at level 9 (what gzip does)."""

    plain: int
    compressed: int

    @classmethod
    def of(cls, path: Path) -> FileSize:
        """Measured."""
        content = path.read_bytes()
        return cls(len(content), len(zlib.compress(content, 9)))


@dataclass(frozen=True, slots=True)
class Sparsified:
    """What masking a model has given.

    Attributes:
        path: Safetensors of the masked model.
        masking: What was asked.
        stages: Scores from the dense model to the saved one.
        layers: Zeros by masked layer.
        parameters: Zeros of all the model's parameters.
        dense: Size of the dense model's file.
        sparse: Size of ``path``.
        macs: Multiply-accumulates per sample of the dense and of the masked model, both counted.
    """

    path: Path
    masking: Masking
    stages: tuple[Stage, ...]
    layers: tuple[LayerZeros, ...]
    parameters: LayerZeros
    dense: FileSize
    sparse: FileSize
    macs: tuple[int, int]

    @property
    def verdict(self) -> str:
        """What this gives and what it does not, in sentences."""
        before, after = self.macs
        smaller = 1 - self.sparse.compressed / self.dense.compressed
        return (
            f"{self.parameters.share:.1%} of all parameters are zero. The file is as large as before "
            f"({self.sparse.plain:,} bytes, dense {self.dense.plain:,}); compressed it is {smaller:.1%} smaller than "
            f"the dense one. It is not faster: dense kernels multiply by zeros too ({after:,} MACs per sample, dense "
            f"{before:,}). For speed, cut channels: automl-prune search or one-shot.\n"
            f"Restored from {self.path} and verified equal"
        )


def masked(model: nn.Module, masking: Masking) -> nn.Module:
    """A copy whose masked weights are zero, and stay so while it is trained.

    Raises:
        ConfigError: No such layer or method, or a user's method failed or masked nothing.
        ModelError: The model has nothing to mask, or shares a weight between layers.
    """
    copied = copy.deepcopy(model)
    layers = _layers(copied, masking.layers)
    with seeded("sparsify", masking.seed):
        if masking.method == GLOBAL:
            pairs = [(module, WEIGHT) for module in layers.values()]
            torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=masking.amount)
        else:
            apply = LAYERWISE.get(masking.method) or _users(masking.method)
            for name, module in layers.items():
                _apply(apply, name, module, masking)
    return copied


def permanent(model: nn.Module, masked_model: nn.Module) -> nn.Module:
    """A copy of ``model`` with the masked model's values: plain parameters again, zeros where the masks were.

    Args:
        model: What was masked; not changed.
        masked_model: From ``masked``; its masks are made permanent.
    """
    for module in masked_model.modules():
        if isinstance(getattr(module, f"{WEIGHT}_mask", None), torch.Tensor):
            torch_prune.remove(module, WEIGHT)
    result = copy.deepcopy(model)
    result.load_state_dict(masked_model.state_dict())
    return result.eval()


def zeros(model: nn.Module, layers: Sequence[str] = ()) -> tuple[LayerZeros, ...]:
    """Zeros of the layers' weights as they are; see ``Masking.layers``."""
    weights = {name: module.get_parameter(WEIGHT) for name, module in _layers(model, layers).items()}
    return tuple(LayerZeros(name, w.numel(), int((w == 0).sum())) for name, w in weights.items())


def all_zeros(model: nn.Module) -> LayerZeros:
    """Zeros of all parameters together."""
    parameters = list(model.parameters())
    return LayerZeros(
        "all parameters", sum(p.numel() for p in parameters), sum(int((p == 0).sum()) for p in parameters)
    )


def _layers(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules to mask, by name."""
    able = {
        name: module
        for name, module in model.named_modules()
        if isinstance(weight := module._parameters.get(WEIGHT), nn.Parameter) and weight.dim() >= 2
    }
    if not able:
        raise ModelError("the model has no layer with a weight of two or more dimensions, so there is nothing to mask")
    for name in names:
        if name not in able:
            raise ConfigError(f"no layer {name!r} has a weight that can be masked; {nearest(name, able)}")
    chosen = {name: able[name] for name in names} if names else able
    owners = Counter(id(p) for module in model.modules() for p in module._parameters.values() if p is not None)
    for name, module in chosen.items():
        if owners[id(module._parameters[WEIGHT])] > 1:
            raise ModelError(f"layer {name!r} shares its weight with another one; name the layers to mask without it")
    return chosen


def _users(reference: str) -> Callable[[nn.Module, str, float], object]:
    found = import_function(reference, "method")
    if isinstance(found, type) and issubclass(found, torch_prune.BasePruningMethod):
        return lambda module, name, amount: found.apply(module, name, amount=amount)
    return found


def _apply(method: Callable[[nn.Module, str, float], object], name: str, module: nn.Module, masking: Masking) -> None:
    try:
        method(module, WEIGHT, masking.amount)
    except Exception as error:  # a user's method raises anything
        raise ConfigError(
            f"method {masking.method!r} failed on layer {name!r}: {type(error).__name__}: {error}"
        ) from error
    mask = getattr(module, f"{WEIGHT}_mask", None)
    if not isinstance(mask, torch.Tensor) or not bool(((mask == 0) | (mask == 1)).all()):
        raise ConfigError(
            f"method {masking.method!r} left no mask of zeros and ones on layer {name!r}; it must mask the weight it "
            "is given, as the functions of torch.nn.utils.prune do"
        )
