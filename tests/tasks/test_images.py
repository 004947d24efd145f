from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from automl_prune.errors import ConfigError, DataError
from automl_prune.tasks import tasks
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.images import FASHION_MNIST_CLASSES, read_idx
from automl_prune.tasks.tensors import TensorImages


def idx_bytes(values: NDArray[np.uint8]) -> bytes:
    """The format as LeCun describes it, independent of the reader."""
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, dtype=">i4").tobytes()
    return header + values.tobytes()


def write_idx_set(folder: Path, *, compressed: bool, train: int = 60, test: int = 20) -> dict[str, NDArray[np.uint8]]:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    content = {
        "train-images-idx3-ubyte": random.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": (np.arange(train) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(test) % 10).astype(np.uint8),
    }
    for name, values in content.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(values)))
        else:
            (folder / name).write_bytes(idx_bytes(values))
    return content


def tensors_of(task: object) -> TensorImages:
    assert isinstance(task, Classification)
    assert isinstance(task.images, TensorImages)
    return task.images


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("name", "below"), [("fashion_mnist", "FashionMNIST/raw"), ("idx", "MNIST/raw")])
@pytest.mark.parametrize("nested", [False, True])
def test_both_layouts_plain_and_compressed(
    tmp_path: Path, name: str, below: str, compressed: bool, nested: bool
) -> None:
    content = write_idx_set(tmp_path / below if nested else tmp_path, compressed=compressed)
    images = tensors_of(tasks[name](root=tmp_path, validation=20, batch_size=8))
    assert {part: len(split) for part, split in images.splits.items()} == {"train": 40, "val": 20, "test": 20}
    assert torch.equal(images.splits["test"].images[:, 0], torch.tensor(content["t10k-images-idx3-ubyte"]))
    assert torch.equal(images.splits["test"].labels, torch.tensor(content["t10k-labels-idx1-ubyte"]).long())
    pairs = {
        (image.tobytes(), int(label))
        for image, label in zip(content["train-images-idx3-ubyte"], content["train-labels-idx1-ubyte"], strict=True)
    }
    read = [
        (image.numpy().tobytes(), int(label))
        for part in (images.splits["train"], images.splits["val"])
        for image, label in zip(part.images, part.labels, strict=True)
    ]
    assert len(read) == 60
    assert set(read) == pairs
    assert torch.bincount(images.splits["val"].labels).tolist() == [2] * 10


def test_missing_fashion_mnist_names_both_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        tasks["fashion_mnist"](root=tmp_path / "nowhere")
    for part in (
        str(tmp_path / "nowhere"),
        "apt-get install dataset-fashion-mnist",
        "/usr/share/datasets/fashion-mnist",
        "torchvision.datasets.FashionMNIST(root, download=True)",
    ):
        assert part in str(caught.value)


def test_one_missing_file_is_named(tmp_path: Path) -> None:
    write_idx_set(tmp_path, compressed=True)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"t10k-labels-idx1-ubyte \(or \.gz\) is missing.*dataset-fashion-mnist"):
        tasks["fashion_mnist"](root=tmp_path)


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x89PNG\r\n", "starts with 89504e47"),
        (b"\0\0\x0d" + GOOD[3:], "IDX type 0x0d"),
        (GOOD[:9], "ends inside its header"),
        (b"\0\0\x08\0", "ends inside its header"),
        (GOOD[:-1], r"shape \(2, 3, 4\), that is 24 bytes, but holds 23: it is truncated"),
        (GOOD + b"\0", "but holds 25"),
        (gzip.compress(GOOD)[:-9], "damaged or truncated"),
        (gzip.compress(GOOD)[:14] + b"\xff\xff\xff\xff" + gzip.compress(GOOD)[18:], "damaged or truncated"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_good_idx_files_of_any_rank_and_name(tmp_path: Path) -> None:
    for values in (np.arange(5), np.arange(24).reshape(2, 3, 4), np.zeros((0, 3))):
        for compress in (bytes, gzip.compress):
            path = tmp_path / "file"
            path.write_bytes(compress(idx_bytes(values.astype(np.uint8))))
            assert torch.equal(read_idx(path), torch.tensor(values, dtype=torch.uint8))
    with pytest.raises(DataError, match="is missing"):
        read_idx(tmp_path / "other")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


def damage_labels(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(59, dtype=np.uint8)))


def damage_size(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((20, 27, 28), dtype=np.uint8)))


def damage_class(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(20, 10, dtype=np.uint8)))


def damage_count(folder: Path) -> None:
    (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(np.zeros((0, 28, 28), dtype=np.uint8)))
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(0, dtype=np.uint8)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_count, r"train-images-idx3-ubyte holds no images"),
        (damage_labels, r"\(60, 28, 28\).*\(59,\)"),
        (damage_size, r"one size"),
        (damage_class, "labels of the test split go from 10 to 10, but there are 10 classes"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_idx_set(tmp_path, compressed=False)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        tasks["fashion_mnist"](root=tmp_path, validation=20)


def test_class_names_and_digest(tmp_path: Path) -> None:
    write_idx_set(tmp_path / "a", compressed=False)
    write_idx_set(tmp_path / "b", compressed=True)
    fashion = tasks["fashion_mnist"](root=tmp_path / "a", validation=20)
    assert fashion.preprocessing is not None
    assert fashion.preprocessing.classes == FASHION_MNIST_CLASSES
    assert fashion.digest == tasks["fashion_mnist"](root=tmp_path / "b", validation=20, batch_size=3).digest
    assert fashion.digest != tasks["fashion_mnist"](root=tmp_path / "b", validation=10).digest
    plain = tasks["idx"](root=tmp_path / "a", validation=20)
    named = tasks["idx"](root=tmp_path / "a", validation=20, classes=list("abcdefghij"))
    assert plain.preprocessing is not None
    assert named.preprocessing is not None
    assert plain.preprocessing.classes == tuple("0123456789")
    assert named.preprocessing.classes == tuple("abcdefghij")


def test_unknown_task_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="fashion_mnist"):
        tasks["fashionmnist"]
