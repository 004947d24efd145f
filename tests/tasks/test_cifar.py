from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from automl_prune.errors import DataError
from automl_prune.tasks import tasks
from automl_prune.tasks.cifar import CIFAR10_CLASSES
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.tensors import TensorImages

Part = tuple[NDArray[np.uint8], list[int]]


def parts(rows: int = 12) -> dict[str, Part]:
    random = np.random.default_rng(0)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    return {
        name: (random.integers(0, 256, (rows, 3072), dtype=np.uint8), [(7 * i + 3) % 10 for i in range(rows)])
        for name in names
    }


def python2_pickle(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    """What Python 2 and NumPy 1 wrote in 2009, opcode by opcode, as in the published files."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    shape = b"K" + bytes([data.shape[0]]) + b"M" + struct.pack("<H", data.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01" + shape + dtype + b"\x89" + b"T" + struct.pack("<i", data.size) + data.tobytes() + b"tb"
    label_list = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + label_list + b"u."


def modern_pickle(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    return pickle.dumps({"data": data, "labels": labels, "batch_label": "training batch"}, protocol=4)


def old_protocol_pickle(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    return pickle.dumps({b"data": data, b"labels": labels}, protocol=2)


def binary(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(data, labels, strict=True))


WRITERS = {
    "python2": (python2_pickle, "cifar-10-batches-py", ""),
    "modern": (modern_pickle, "cifar-10-batches-py", ""),
    "old protocol": (old_protocol_pickle, "cifar-10-batches-py", ""),
    "binary": (binary, "cifar-10-batches-bin", ".bin"),
}


def write(root: Path, kind: str, *, nested: bool = True) -> dict[str, Part]:
    writer, folder, suffix = WRITERS[kind]
    where = root / folder if nested else root
    where.mkdir(parents=True, exist_ok=True)
    content = parts()
    for name, part in content.items():
        (where / f"{name}{suffix}").write_bytes(writer(*part))
    return content


def load(root: Path, **options: Any) -> TensorImages:
    task = tasks["cifar10"](root=root, validation=20, **options)
    assert isinstance(task, Classification)
    assert isinstance(task.images, TensorImages)
    return task.images


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", WRITERS)
def test_every_layout_gives_the_same_images(tmp_path: Path, kind: str, nested: bool) -> None:
    content = write(tmp_path, kind, nested=nested)
    images = load(tmp_path)
    assert {name: len(split) for name, split in images.splits.items()} == {"train": 40, "val": 20, "test": 12}
    data, labels = content["test_batch"]
    assert images.splits["test"].labels.tolist() == labels
    # row r, column c of the green plane sits at 1024 + 32 r + c
    assert images.splits["test"].images[4, 1, 5, 6].item() == data[4, 1024 + 32 * 5 + 6]
    assert torch.equal(images.splits["test"].images, torch.tensor(data).view(12, 3, 32, 32))
    training = {row.tobytes() for name in content if name != "test_batch" for row in content[name][0]}
    read = [image.numpy().tobytes() for name in ("train", "val") for image in images.splits[name].images]
    assert set(read) == training
    assert len(read) == 60
    assert images.preprocessing.classes == CIFAR10_CLASSES
    assert images.preprocessing.color == "RGB"
    write(tmp_path / "reference", "binary")
    assert images.digest == load(tmp_path / "reference").digest


class Evil:
    """Its pickle calls a function of the attacker's choice."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "modern")
    victim, target = tmp_path / "cifar-10-batches-py" / "data_batch_3", tmp_path / "touched"
    victim.write_bytes(pickle.dumps({"data": Evil(target), "labels": []}))
    with pytest.raises(DataError, match=r"data_batch_3.*do not use this file"):
        load(tmp_path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle(*parts()["test_batch"])[:-2000], "not a complete CIFAR batch"),
        (b"", "not a complete CIFAR batch"),
        (b"hello", "not a complete CIFAR batch"),
        (pickle.dumps({"data": np.zeros((2, 3072), dtype=np.uint8)}), "not a complete CIFAR batch.*labels"),
        (pickle.dumps({"data": np.zeros((2, 3072), dtype=np.uint8), "labels": [1]}), r"expected uint8 \(1, 3072\)"),
        (pickle.dumps({"data": np.zeros((1, 3072)), "labels": [1]}), "data are float64"),
        (pickle.dumps({"data": [1], "labels": [1]}), "data are list"),
        (pickle.dumps([1]), "not a complete CIFAR batch"),
    ],
)
def test_damaged_pickles_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    write(tmp_path, "modern")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path)
    assert "test_batch" in str(caught.value)


def test_truncated_and_missing_files(tmp_path: Path) -> None:
    write(tmp_path, "binary")
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2.bin has 36875 bytes, not a positive multiple of 3073"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"data_batch_2.bin is missing.*cifar-10-python.tar.gz"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"no cifar-10-batches-py.*CIFAR10\(root, download=True\)"):
        load(tmp_path / "nowhere")
