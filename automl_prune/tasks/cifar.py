"""CIFAR-10 in both layouts its authors publish; the Python one is unpickled without running code from the file."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch

from automl_prune.errors import DataError
from automl_prune.tasks.base import tasks
from automl_prune.tasks.classification import Classification, held_out
from automl_prune.tasks.tensors import Augmentation, LabelledTensors, TensorImages

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
SHAPE = (3, 32, 32)
_BYTES = 3 * 32 * 32
_HELP = (
    "Unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (or cifar-10-binary.tar.gz) there, or call "
    "`torchvision.datasets.CIFAR10(root, download=True)` in Python, and set data.root"
)


@tasks.register("cifar10")
def cifar10(
    root: str | Path = "data/cifar10",
    *,
    batch_size: int = 128,
    validation: int = 5000,
    crop_padding: int = 4,
    flip: bool = True,
    label_smoothing: float = 0.0,
) -> Classification:
    """CIFAR-10 (Krizhevsky 2009): 32x32 RGB, 10 classes, 50k + 10k images.

    Args:
        root: Folder of cifar-10-batches-py or cifar-10-batches-bin, or one of these folders.
        batch_size: Samples per batch.
        validation: How many of the training images are held out, stratified by class.
        crop_padding: Padding of random crops in augmentation.
        flip: Whether augmentation mirrors images.
        label_smoothing: See ``Classification``.

    Raises:
        DataError: Files are missing or damaged, or a pickle holds anything but arrays, lists and text.
    """
    training, test = _read_folder(Path(root))
    images = TensorImages.of(
        held_out(training, test, validation),
        classes=CIFAR10_CLASSES,
        batch_size=batch_size,
        augmentation=Augmentation(padding=crop_padding, flip=flip),
    )
    return Classification("cifar10", images, label_smoothing)


def _read_folder(root: Path) -> tuple[LabelledTensors, LabelledTensors]:
    """Training and test images of the first layout found."""
    layouts = (("cifar-10-batches-py", "", _read_pickle), ("cifar-10-batches-bin", ".bin", _read_binary))
    for name, suffix, read in layouts:
        for folder in (root / name, root):
            if not (folder / f"data_batch_1{suffix}").is_file():
                continue
            parts = [read(folder / f"data_batch_{number}{suffix}") for number in range(1, 6)]
            training = LabelledTensors(
                torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
            )
            return training, read(folder / f"test_batch{suffix}")
    raise DataError(f"no cifar-10-batches-py and no cifar-10-batches-bin in {root}. {_HELP}.")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing. {_HELP}.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}); check its permissions, or fetch it again") from error


def _read_binary(path: Path) -> LabelledTensors:
    """Records of one label byte and 3072 pixel bytes."""
    content = _content(path)
    if not content or len(content) % (1 + _BYTES):
        raise DataError(
            f"{path} has {len(content)} bytes, not a positive multiple of {1 + _BYTES}: it is truncated or "
            "damaged, fetch it again"
        )
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(-1, 1 + _BYTES)
    return LabelledTensors(records[:, 1:].reshape(-1, *SHAPE), records[:, 0].long())


def _read_pickle(path: Path) -> LabelledTensors:
    """A dictionary of ``data``, uint8 (samples, 3072), and ``labels``, a list."""
    try:
        batch = _ArraysOnly(io.BytesIO(_content(path)), encoding="bytes").load()
        named = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        data, labels = named["data"], torch.tensor([int(label) for label in named["labels"]])
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises anything: struct.error, KeyError, UnicodeDecodeError, ...
        raise DataError(f"{path} is not a complete CIFAR batch ({error!r}): fetch it again") from error
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape != (len(labels), _BYTES):
        found = f"{data.dtype} {data.shape}" if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{path}: data are {found}; expected uint8 ({len(labels)}, {_BYTES}), one row per label")
    return LabelledTensors(torch.from_numpy(data.copy()).view(-1, *SHAPE), labels)


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds NumPy arrays of numbers and plain values; any other object in the file is an error."""

    def find_class(self, module: str, name: str) -> Any:
        # NumPy 1 pickles name numpy.core, NumPy 2 pickles numpy._core
        if (module.replace("numpy.core", "numpy._core"), name) == ("numpy._core.multiarray", "_reconstruct"):
            return np._core.multiarray._reconstruct  # type: ignore[attr-defined]  # private, named by every pickle
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise DataError(f"it asks for {module}.{name}, which no CIFAR file needs; do not use this file")


def _latin1(text: str, _encoding: str) -> bytes:
    """What Python 3 writes for bytes in the old pickle protocols."""
    return text.encode("latin1")
