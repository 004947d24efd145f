from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from automl_prune.errors import DataError
from automl_prune.seeding import generator
from automl_prune.tasks import tasks
from automl_prune.tasks.classification import Classification
from automl_prune.tasks.folders import FolderImages, random_crop


def write(root: Path, *, train: int = 8, test: int = 3) -> None:
    """Two classes of images in assorted sizes and modes, PNG and JPEG."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("val", test)):
        for name in ("n02", "n01"):
            folder = root / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                height, width = 20 + 3 * number, 30 - number
                pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                image = Image.fromarray(pixels)
                if number == 1:
                    image = image.convert("L")
                image.save(folder / f"{number}.{'png' if number % 2 else 'JPEG'}")
            (folder / "notes.txt").write_text("not an image")


def load(root: Path, **options: Any) -> Classification:
    settings = {"validation": 4, "size": 16, "resize": 20, "batch_size": 4}
    task = tasks["image_folder"](root=root, **{**settings, **options})
    assert isinstance(task, Classification)
    assert isinstance(task.images, FolderImages)
    return task


def files(task: Classification) -> dict[str, list[str]]:
    assert isinstance(task.images, FolderImages)
    return {name: [*split.paths] for name, split in task.images.splits.items()}


def test_splits_are_disjoint_stratified_and_in_class_order(tmp_path: Path) -> None:
    write(tmp_path)
    task = load(tmp_path)
    split = files(task)
    assert sorted(split["train"] + split["val"]) == sorted(
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "train").rglob("*")
        if path.suffix in (".png", ".JPEG")
    )
    assert [path.split("/")[1] for path in split["val"]] == ["n01"] * 2 + ["n02"] * 2
    assert len(split["test"]) == 6
    assert all(path.startswith("val/") for path in split["test"])
    labels = torch.cat([labels for _, labels in task.batches("test")])
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert task.preprocessing.classes == ("n01", "n02")
    assert files(load(tmp_path)) == split


def test_evaluation_preprocessing_is_the_usual_one(tmp_path: Path) -> None:
    write(tmp_path)
    task = load(tmp_path)
    usual = v2.Compose(
        [
            v2.Resize(20),
            v2.CenterCrop(16),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    expected = [usual(Image.open(tmp_path / path).convert("RGB")) for path in files(task)["test"]]
    torch.testing.assert_close(torch.cat([images for images, _ in task.batches("test")]), torch.stack(expected))


def test_batches_do_not_depend_on_workers_or_global_state(tmp_path: Path) -> None:
    write(tmp_path)
    before = torch.random.get_rng_state()
    alone = list(load(tmp_path, workers=0).batches("train", shuffle=3, augment=True))
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    batches = load(tmp_path, workers=2).batches("train", shuffle=3, augment=True)
    together, again = list(batches), list(batches)
    assert len(batches) == len(alone) == 3
    for (a, x), (b, y), (c, z) in zip(alone, together, again, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
        assert x.tolist() == y.tolist() == z.tolist()
        assert a.shape == (4, 3, 16, 16)
    other = list(load(tmp_path).batches("train", shuffle=4, augment=True))
    assert not torch.equal(torch.cat([a for a, _ in alone]), torch.cat([a for a, _ in other]))


def test_shuffled_batches_leave_out_the_rest_unless_it_is_all(tmp_path: Path) -> None:
    write(tmp_path)
    sizes = [len(y) for _, y in load(tmp_path, batch_size=5).batches("train", shuffle=0)]
    assert sizes == [5, 5]
    assert [len(y) for _, y in load(tmp_path, batch_size=5).batches("train")] == [5, 5, 2]
    assert [len(y) for _, y in load(tmp_path, batch_size=50).batches("train", shuffle=0)] == [12]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_is_named(tmp_path: Path, workers: int) -> None:
    write(tmp_path)
    victim = tmp_path / "val" / "n02" / "0.JPEG"
    victim.write_bytes(victim.read_bytes()[:200])
    task = load(tmp_path, workers=workers)
    with pytest.raises(DataError) as caught:
        list(task.batches("test"))
    assert str(caught.value).startswith(f"{victim} is not a readable image")


def test_digest_sees_names_sizes_and_preprocessing(tmp_path: Path) -> None:
    write(tmp_path)
    digest = load(tmp_path).digest
    assert load(tmp_path, batch_size=2, workers=1).digest == digest
    assert load(tmp_path, size=15).digest != digest
    assert load(tmp_path, validation=6).digest != digest
    image = tmp_path / "val" / "n01" / "0.JPEG"
    image.rename(image.with_name("00.JPEG"))
    assert load(tmp_path).digest != digest


def test_wrong_layouts_and_options_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected <root>/train/<class>/<image>"):
        load(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        load(tmp_path)
    (tmp_path / "train").rmdir()
    write(tmp_path)
    (tmp_path / "train" / "n03").mkdir()
    with pytest.raises(DataError, match="n03 holds no images"):
        load(tmp_path)
    (tmp_path / "train" / "n03").rmdir()
    (tmp_path / "val" / "stray").mkdir()
    with pytest.raises(DataError, match="stray has no counterpart"):
        load(tmp_path)
    (tmp_path / "val" / "stray").rmdir()
    for wrong in ({"size": 30}, {"batch_size": 0}, {"workers": -1}, {"mean": [0.5]}, {"std": [1, 1, 0]}):
        with pytest.raises(DataError, match=next(iter(wrong))):
            load(tmp_path, **wrong)
    with pytest.raises(DataError, match="hold out 16 of 16"):
        load(tmp_path, validation=16)


def test_random_crops_stay_inside_and_have_the_stated_shape() -> None:
    random = generator(0)
    boxes = [random_crop(90, 120, random) for _ in range(2000)]
    areas, ratios = [], []
    for top, left, height, width in boxes:
        assert 0 <= top <= 90 - height
        assert 0 <= left <= 120 - width
        areas.append(height * width / (90 * 120))
        ratios.append(width / height)
    assert 0.07 < min(areas) < 0.12
    assert 0.9 < max(areas) <= 1
    assert 0.7 < min(ratios) < 0.8
    assert 1.25 < max(ratios) < 1.4
    assert math.isclose(np.mean(np.log(ratios)), 0, abs_tol=0.05)
    for height, width in ((1, 1), (3, 400), (400, 3)):  # where no box fits, the central one
        top, left, box_height, box_width = random_crop(height, width, generator(1))
        assert 0 <= top <= height - box_height < height
        assert 0 <= left <= width - box_width < width
