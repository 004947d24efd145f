"""What the product needs to know of a user's data: one small protocol for any kind of supervised task."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from automl_prune.registry import Registry

Split = Literal["train", "val", "test"]
"""Training data; validation data, held out of the training data, on which everything is chosen; test data, on
which nothing is ever chosen."""

Batch = Any
"""Whatever the task's own ``batches`` yield: tensors, or tuples, lists and dicts of tensors."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What a task is scored by.

    Attributes:
        name: e.g. ``"accuracy"``.
        higher_is_better: Direction.
        percent: Whether people read it in per cent (a value of 0.93 is shown as 93.0 %).
    """

    name: str
    higher_is_better: bool
    percent: bool = False

    def better(self, a: float, b: float) -> bool:
        """Whether ``a`` is strictly better than ``b``."""
        return a > b if self.higher_is_better else a < b

    def show(self, value: float) -> str:
        """The value as people read it, with its unit."""
        return f"{100 * value:.2f} %" if self.percent else f"{value:.4g}"


PAIRED = 200_000
"""Samples up to which a score knows which were right; the noise that this takes out of a comparison is small beyond."""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's value on a split.

    Attributes:
        value: Mean over the samples.
        samples: How many samples were scored.
        standard_error: Standard error of ``value`` from sampling the data; None where the task cannot say.
        hits: Of a proportion, which samples were right, in the split's order: base64 of one bit each, the first bit
            highest. Two scores on the same samples are compared far more sharply with it. Empty where not known.
    """

    value: float
    samples: int
    standard_error: float | None = None
    hits: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.hits and len(self._packed()) != math.ceil(self.samples / 8):
            raise ValueError(f"a score of {self.samples} samples comes with the hits of other ones")

    @classmethod
    def of_hits(cls, right: torch.Tensor) -> Score:
        """The proportion of samples that are right: booleans of shape (samples,), in the split's order."""
        score = cls.of_proportion(int(right.sum()), len(right))
        if len(right) > PAIRED:
            return score
        return replace(score, hits=base64.b64encode(np.packbits(right.cpu().numpy()).tobytes()).decode())

    @classmethod
    def of_proportion(cls, hits: int, samples: int) -> Score:
        """A proportion with its binomial standard error.

        Where all or nothing was hit, that of two more hits and two more misses (Agresti & Coull 1998, "Approximate
        is better than 'exact'"): a perfect score on few samples is no certainty.
        """
        value = hits / samples
        if hits in (0, samples):
            likely = (hits + 2) / (samples + 4)
            return cls(value, samples, math.sqrt(likely * (1 - likely) / (samples + 4)))
        return cls(value, samples, math.sqrt(value * (1 - value) / samples))

    @property
    def right(self) -> NDArray[np.float64] | None:
        """1 for every sample that is right and 0 for the others, shape (samples,); None where ``hits`` is empty."""
        if not self.hits:
            return None
        return np.unpackbits(np.frombuffer(self._packed(), np.uint8), count=self.samples).astype(np.float64)

    def _packed(self) -> bytes:
        return base64.b64decode(self.hits, validate=True)

    def error_against(self, other: Score) -> float | None:
        """Standard error of the difference to another model's score on the same samples; None where not known.

        Sample by sample where both know their hits, else as if the two were independent, which is rather too much.
        """
        ours, theirs = self.right, other.right
        if ours is not None and theirs is not None and len(ours) == len(theirs):
            return math.sqrt(paired_variance(ours, theirs))
        if self.standard_error is None or other.standard_error is None:
            return None
        return math.hypot(self.standard_error, other.standard_error)

    def figures(self) -> dict[str, Any]:
        """What people read of it, JSON-ready: all but the single samples."""
        return {"value": self.value, "samples": self.samples, "standard_error": self.standard_error}


def paired_variance(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Variance, from sampling the data, of the difference of two means over the same samples.

    With two more samples, one in favour of either, each by half, as Agresti & Min 2005 ("Simple improved confidence
    intervals for comparing matched proportions") have it: models that never differ on few samples may yet differ.

    Args:
        ours: One value per sample, in [0, 1].
        theirs: The other's, in the same order.
    """
    difference, samples = ours - theirs, len(ours) + 2
    mean_square = (float(np.square(difference).sum()) + 1) / samples
    return (mean_square - (float(difference.sum()) / samples) ** 2) / samples


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a raw image becomes the model's input, so that whoever has only the ONNX file can do it.

    Attributes:
        layout: Order of the input's dimensions.
        color: ``"gray"`` or ``"RGB"``.
        height: Input height in pixels.
        width: Input width in pixels.
        value_range: Range of raw pixel values, e.g. (0, 255); they are first divided by its upper end.
        mean: Subtracted per channel after that division.
        std: Divided by per channel after that.
        resize: Shorter side before the centre crop, or None when images come in the input's size.
        interpolation: How ``resize`` interpolates, or None.
        classes: Class names in the order of the model's outputs.
    """

    layout: str
    color: str
    height: int
    width: int
    value_range: tuple[float, float]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]
    resize: int | None = None
    interpolation: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


class Batches(Protocol):
    """A sized iterable of batches, e.g. a ``DataLoader``; iterating twice yields the same batches again."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@runtime_checkable
class Task(Protocol):
    """Data, loss and metric of one problem. Batches come on the CPU; ``move`` takes them to a device.

    A registered implementation is built by a factory in ``tasks``; ``ClassVar`` or plain attributes serve as well
    as properties.
    """

    @property
    def name(self) -> str:
        """For tables and file names."""
        ...

    @property
    def metric(self) -> Metric:
        """What models are scored by."""
        ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """For the manifest of exported models; None where the inputs are not images."""
        ...

    @property
    def digest(self) -> str:
        """Hexadecimal identity of the data, the splits and the preprocessing."""
        ...

    @property
    def example_inputs(self) -> tuple[torch.Tensor, ...]:
        """Positional inputs of the model, two samples in the batch, on the CPU."""
        ...

    def batches(self, split: Split, *, shuffle: int | None = None, augment: bool = False) -> Batches:
        """The split's batches: in a fixed order, or shuffled by the seed ``shuffle``; augmented on request.

        Equal arguments give equal batches; augmentation draws from the seed ``shuffle`` too. Shuffled batches
        leave out a last incomplete batch, unless it is the only one.
        """
        ...

    def inputs(self, batch: Batch) -> tuple[torch.Tensor, ...]:
        """The positional arguments of the model's forward pass."""
        ...

    def loss(self, outputs: Any, batch: Batch) -> torch.Tensor:
        """The training loss, a scalar with gradient."""
        ...

    def distillation_loss(self, outputs: Any, teacher_outputs: Any) -> torch.Tensor:
        """How far the outputs are from a teacher's, a scalar with gradient on the scale of ``loss``."""
        ...

    def score(self, predictions: Iterable[tuple[Any, Batch]]) -> Score:
        """The metric over pairs (outputs, batch); consumes the iterable once, keeping no tensors."""
        ...


tasks: Registry[Callable[..., Task]] = Registry("tasks")
"""Factories of tasks; keyword arguments are the configuration's ``data`` section without ``name``."""


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor in it on ``device``; tuples, lists and dicts keep their form."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: move(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(move(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(move(value, device) for value in batch)
    return batch
