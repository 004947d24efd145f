"""Images in IDX files, the format of MNIST and its descendants: any such set, and Fashion-MNIST."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from automl_prune.errors import DataError
from automl_prune.tasks.base import tasks
from automl_prune.tasks.classification import Classification, held_out
from automl_prune.tasks.tensors import Augmentation, LabelledTensors, TensorImages

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_UNSIGNED_BYTES = 0x08


def read_idx(path: Path) -> torch.Tensor:
    """Read an IDX file of unsigned bytes, plain or gzip (told by content, not by name).

    The format (Y. LeCun, "The MNIST database"): two zero bytes, a type code, the number of dimensions, each
    dimension as a big-endian 32-bit integer, then the values in row-major order.

    Returns:
        uint8 tensor of the shape the file states.

    Raises:
        DataError: The file is missing, no IDX file, not of unsigned bytes, or not of the stated size.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; put the IDX file there or correct data.root") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); it is damaged or truncated: fetch it again") from error
    if len(content) < 4 or content[:2] != b"\0\0":
        start_ = content[:4].hex() or "nothing"
        raise DataError(f"{path} is not an IDX file: it starts with {start_}, not with two zero bytes; fetch it again")
    kind, dimensions = content[2], content[3]
    if kind != _UNSIGNED_BYTES:
        raise DataError(f"{path} holds IDX type {kind:#04x}; only unsigned bytes (0x08) are images or labels")
    start = 4 + 4 * dimensions
    if dimensions == 0 or len(content) < start:
        raise DataError(f"{path} ends inside its header ({len(content)} bytes): fetch it again")
    shape = [int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions)]
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path} states shape {tuple(shape)}, that is {math.prod(shape)} bytes, but holds "
            f"{len(content) - start}: it is truncated or damaged, fetch it again"
        )
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)[start:].reshape(shape)


@tasks.register("fashion_mnist")
def fashion_mnist(
    root: str | Path = "data/fashion-mnist",
    *,
    batch_size: int = 128,
    validation: int = 5000,
    crop_padding: int = 2,
    flip: bool = True,
    label_smoothing: float = 0.0,
) -> Classification:
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 28x28 gray, 10 classes, 60k + 10k images.

    Args:
        root: Folder of the four IDX files, plain or .gz, or torchvision's root above FashionMNIST/raw.
        batch_size: Samples per batch.
        validation: How many of the training images are held out, stratified by class.
        crop_padding: Padding of random crops in augmentation.
        flip: Whether augmentation mirrors images.
        label_smoothing: See ``Classification``.

    Raises:
        DataError: Files are missing or damaged.
    """
    help_ = (
        "Get them by `apt-get install dataset-fashion-mnist` (root: /usr/share/datasets/fashion-mnist) or by "
        "`torchvision.datasets.FashionMNIST(root, download=True)` in Python, and set data.root"
    )
    folder = _find_folder(Path(root), ("", "FashionMNIST/raw"), help_)
    augmentation = Augmentation(padding=crop_padding, flip=flip)
    images = _idx_images(folder, help_, FASHION_MNIST_CLASSES, batch_size, validation, augmentation)
    return Classification("fashion_mnist", images, label_smoothing)


@tasks.register("idx")
def idx(
    root: str | Path,
    *,
    classes: Sequence[str] | None = None,
    batch_size: int = 128,
    validation: int = 5000,
    crop_padding: int = 2,
    flip: bool = False,
    label_smoothing: float = 0.0,
) -> Classification:
    """Any set in MNIST's layout: {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz.

    Args:
        root: Folder of the four files, or torchvision's root above MNIST/raw.
        classes: Names in the order of the labels; the numbers themselves when left out.
        batch_size: Samples per batch.
        validation: How many of the training images are held out, stratified by class.
        crop_padding: Padding of random crops in augmentation.
        flip: Whether augmentation mirrors images (it makes other digits of digits).
        label_smoothing: See ``Classification``.

    Raises:
        DataError: Files are missing or damaged.
    """
    names = None if classes is None else tuple(classes)
    help_ = "Put the four files of MNIST's layout there, plain or .gz, or correct data.root"
    folder = _find_folder(Path(root), ("", "MNIST/raw", "raw"), help_)
    augmentation = Augmentation(padding=crop_padding, flip=flip)
    images = _idx_images(folder, help_, names, batch_size, validation, augmentation)
    return Classification("idx", images, label_smoothing)


def _idx_images(
    folder: Path,
    help_: str,
    classes: tuple[str, ...] | None,
    batch_size: int,
    validation: int,
    augmentation: Augmentation,
) -> TensorImages:
    training = _read_pair(folder, "train", help_)
    test = _read_pair(folder, "t10k", help_)
    if training.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"{folder}: training images are {tuple(training.images.shape[2:])} and test images "
            f"{tuple(test.images.shape[2:])}; both must be of one size"
        )
    if classes is None:
        highest = max(int(training.labels.max()), int(test.labels.max()))
        classes = tuple(str(label) for label in range(highest + 1))
    return TensorImages.of(
        held_out(training, test, validation),
        classes=classes,
        batch_size=batch_size,
        augmentation=augmentation,
    )


def _find_folder(root: Path, layouts: tuple[str, ...], help_: str) -> Path:
    """The first of the layouts under ``root`` that holds training images."""
    for layout in layouts:
        if _find_file(root / layout, "train-images-idx3-ubyte") is not None:
            return root / layout
    tried = " or ".join(str(root / layout) for layout in layouts)
    raise DataError(f"no train-images-idx3-ubyte (or .gz) in {tried}. {help_}.")


def _find_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_pair(folder: Path, prefix: str, help_: str) -> LabelledTensors:
    """Images, shape (samples, 1, height, width), and labels of one IDX pair."""
    paths = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        path = _find_file(folder, name)
        if path is None:
            raise DataError(f"{folder / name} (or .gz) is missing. {help_}.")
        paths.append(path)
    images, labels = read_idx(paths[0]), read_idx(paths[1])
    if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
        raise DataError(
            f"{paths[0]} has shape {tuple(images.shape)} and {paths[1]} {tuple(labels.shape)}; expected "
            "(samples, height, width) and (samples,) with equally many samples"
        )
    if not len(images):
        raise DataError(f"{paths[0]} holds no images: fetch it again")
    return LabelledTensors(images.unsqueeze(1), labels.long())
