"""Peak memory: which tensors live when, as a function of the widths, and counted on a built model.

What is counted is what torch holds while one input runs through the model in evaluation mode, without gradients:
parameters, buffers, the input, and every activation from the operator that makes it until nothing refers to it any
more. Views and in-place operators share memory. What an operator needs for itself while it runs is not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from automl_prune.costs.modes import evaluating
from automl_prune.costs.polynomial import Term, WidthPolynomial
from automl_prune.costs.unfused import followable

T = TypeVar("T")


@dataclass(slots=True)
class Span(Generic[T]):
    """The life of one piece of memory, in operators counted from 1.

    Attributes:
        what: Whatever is to be known of it.
        first: The operator that made it; 0 when it was there before.
        last: The last operator that ran while it lived; None when it outlives the run.
    """

    what: T
    first: int
    last: int | None = None


class MemoryLog(Generic[T]):
    """Follows every piece of memory that operators make or read.

    Args:
        held: Tensors that live as long as the model: parameters, buffers, inputs.
        describe: What to remember of a tensor seen first.
    """

    def __init__(self, held: Iterable[torch.Tensor], describe: Callable[[torch.Tensor], T]) -> None:
        self.spans: list[Span[T]] = []
        self._describe = describe
        self._operators = 0
        self._living: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        for tensor in held:
            self._meet(tensor, 0)

    def see(self, inputs: Iterable[torch.Tensor], outputs: Iterable[torch.Tensor]) -> None:
        """An operator has run; its inputs still live."""
        self._operators += 1
        for tensor in inputs:
            self._meet(tensor, 0)  # what no operator made, a constant of the model, was there before
        for tensor in outputs:
            self._meet(tensor, self._operators)

    def _meet(self, tensor: torch.Tensor, first: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._living:
            span = Span(self._describe(tensor), first)
            self.spans.append(span)
            self._living[key] = weakref.ref(storage, partial(self._end, key, span))

    def _end(self, key: int, span: Span[T], _: object) -> None:
        span.last = self._operators
        del self._living[key]


@dataclass(frozen=True, slots=True)
class LiveTensor:
    """A tensor's bytes as a function of the widths, and when it lives (see ``Span``)."""

    bytes: Term
    first: int
    last: int | None


@dataclass(frozen=True)
class PeakMemory:
    """The greatest sum of the tensors that live together, in bytes; monotone increasing in every width. Immutable.

    Attributes:
        groups: Names of the variables, in the order of the vectors that ``evaluate`` takes.
        tensors: Everything that lives at some time.
    """

    groups: tuple[str, ...]
    tensors: tuple[LiveTensor, ...]
    _sizes: WidthPolynomial = field(init=False, repr=False, compare=False)
    _together: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        sizes = WidthPolynomial(self.groups, tuple(tensor.bytes for tensor in self.tensors))
        object.__setattr__(self, "_sizes", sizes)
        object.__setattr__(self, "_together", _together(self.tensors))

    @property
    def monotone(self) -> bool:
        """True: no tensor shrinks when a width grows."""
        return True

    def evaluate(self, widths: NDArray[np.int64] | Sequence[int]) -> int:
        """The exact value for a vector of widths, shape (groups,), in the order of ``groups``."""
        return int(self.evaluate_all(np.asarray(widths, dtype=np.int64)[None])[0])

    def evaluate_all(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """The exact values for many vectors of widths, shape (many, groups), as shape (many,)."""
        sizes = self._sizes.values(widths).astype(np.float64)  # whole numbers below 2**53 stay exact, and are fast
        return np.asarray((self._together @ sizes).max(axis=0).astype(np.int64))

    def at(self, widths: Mapping[str, int]) -> int:
        """The exact value for widths by group name; every group must be named."""
        return self.evaluate([widths[group] for group in self.groups])


def count_memory(model: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> int:
    """Peak bytes while one sample runs, counted from the sizes of the memory torch allocates.

    Args:
        model: Any module; not changed.
        example_inputs: Positional inputs whose first dimension is the batch; the first sample is run.
    """
    inputs = tuple(tensor[:1].clone() for tensor in example_inputs)
    log = MemoryLog([*model.parameters(), *model.buffers(), *inputs], _bytes)
    with evaluating(model), torch.no_grad(), followable(), _Logging(log):
        model(*inputs)
    events = {span.first for span in log.spans}
    return max(
        sum(span.what for span in log.spans if span.first <= time and (span.last is None or time <= span.last))
        for time in events
    )


class _Logging(TorchDispatchMode):
    def __init__(self, log: MemoryLog[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class carries no annotations
        self._log = log

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._log.see(_tensors((args, kwargs)), _tensors(out))
        return out


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().nbytes()


def _together(tensors: Sequence[LiveTensor]) -> NDArray[np.float64]:
    """Sets of tensors that live together, as rows of 0 and 1; those within another one are left out."""
    first = np.array([tensor.first for tensor in tensors], dtype=np.int64)
    end = max([0, *first.tolist()])
    last = np.array([end if tensor.last is None else tensor.last for tensor in tensors], dtype=np.int64)
    times = np.unique(first)[:, None]
    living = np.unique(((first <= times) & (times <= last)).astype(np.float64), axis=0)
    shared = living @ living.T
    within = (shared == living.sum(axis=1)[:, None]).sum(axis=1) > 1  # every set is within itself
    return np.asarray(living[~within])
