"""Images in folders by class, ImageNet's layout; decoded when needed, in worker processes on request."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch.utils.data import DataLoader, Dataset

from automl_prune.errors import DataError
from automl_prune.seeding import derive_seed, generator
from automl_prune.tasks.base import Batches, Preprocessing, Split, tasks
from automl_prune.tasks.classification import Classification, held_out

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_AREA = (0.08, 1.0)
_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """One split.

    Attributes:
        paths: Relative to the root, with forward slashes.
        sizes: Bytes of each file.
        labels: int64, shape (samples,).
    """

    paths: Sequence[str]
    sizes: Sequence[int]
    labels: torch.Tensor

    def take(self, indices: torch.Tensor) -> LabelledFiles:
        """The files at ``indices``."""
        chosen = indices.tolist()
        return LabelledFiles([self.paths[i] for i in chosen], [self.sizes[i] for i in chosen], self.labels[indices])


@final
@dataclass(frozen=True)
class FolderImages:
    """Labelled images on disk (a ``LabelledImages``).

    Attributes:
        root: What paths are relative to.
        splits: By name.
        preprocessing: Resize, centre crop and normalisation; augmentation replaces the first two.
        batch_size: Samples per batch.
        workers: Decoding processes; 0 decodes in this one. They do not change the batches.
        digest: Identity of paths, file sizes, splits and preprocessing.
    """

    root: Path
    splits: Mapping[Split, LabelledFiles]
    preprocessing: Preprocessing
    batch_size: int
    workers: int
    digest: str

    def batches(self, split: Split, *, shuffle: int | None, augment: bool) -> Batches:
        """See ``Task.batches``; a split smaller than one batch is one batch even when shuffled."""
        files = self.splits[split]
        order = torch.arange(len(files.paths))
        if shuffle is not None:
            order = torch.randperm(len(order), generator=generator("batches", shuffle))
            if len(order) >= self.batch_size:
                order = order[: len(order) // self.batch_size * self.batch_size]
        seed = derive_seed("augment", shuffle) if augment else None
        return _FolderBatches(_Decoder(self.root, files, self.preprocessing, seed), order.tolist(), self)


@dataclass(frozen=True, slots=True)
class _FolderBatches:
    decoder: _Decoder
    order: Sequence[int]
    data: FolderImages

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.data.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        loader: DataLoader[Any] = DataLoader(
            self.decoder,
            batch_size=self.data.batch_size,
            sampler=self.order,
            num_workers=self.data.workers,
            collate_fn=_collate,
            pin_memory=torch.cuda.is_available(),
            generator=generator("workers"),  # else the loader would draw from the global one
        )
        for batch in loader:
            if isinstance(batch, str):
                raise DataError(batch)
            yield batch


class _Decoder(Dataset[Any]):
    """Files as preprocessed tensors; what is random about a sample depends on its index and the seed alone."""

    def __init__(
        self, root: Path, files: LabelledFiles, preprocessing: Preprocessing, augment_seed: int | None
    ) -> None:
        self.root, self.files, self.preprocessing, self.augment_seed = root, files, preprocessing, augment_seed

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int] | str:
        """An image and its label, or a message where the file is damaged (errors lose their form in workers)."""
        from PIL import Image

        path = self.root / self.files.paths[index]
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except Exception as error:  # Pillow's decoders raise anything on damaged files
            return f"{path} is not a readable image ({error}); restore or remove it"
        if self.augment_seed is None:
            return self._central(image), int(self.files.labels[index])
        return self._random(image, generator(self.augment_seed, index)), int(self.files.labels[index])

    def _central(self, image: Any) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as transform

        if self.preprocessing.resize is not None:
            image = transform.resize(image, [self.preprocessing.resize])
        return self._normalise(transform.center_crop(image, [self.preprocessing.height, self.preprocessing.width]))

    def _random(self, image: Any, random: torch.Generator) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as transform

        top, left, height, width = random_crop(image.height, image.width, random)
        size = [self.preprocessing.height, self.preprocessing.width]
        image = transform.resized_crop(image, top, left, height, width, size)
        if torch.rand((), generator=random) < 0.5:
            image = transform.horizontal_flip(image)
        return self._normalise(image)

    def _normalise(self, image: Any) -> torch.Tensor:
        from torchvision.transforms.v2 import functional as transform

        tensor = transform.to_dtype(transform.pil_to_tensor(image), torch.float32, scale=True)
        normal: torch.Tensor = transform.normalize(tensor, [*self.preprocessing.mean], [*self.preprocessing.std])
        return normal


def random_crop(height: int, width: int, random: torch.Generator) -> tuple[int, int, int, int]:
    """A random box of 8 to 100 % of the area and aspect 3/4 to 4/3, Szegedy et al. 2014 (arXiv:1409.4842), section 6.

    torchvision's ``RandomResizedCrop``, but drawing from the given generator instead of the global one.

    Returns:
        (top, left, height, width) inside the image.
    """
    for _ in range(10):
        area, aspect, vertical, horizontal = torch.rand(4, generator=random, dtype=torch.float64).tolist()
        pixels = height * width * (_AREA[0] + area * (_AREA[1] - _AREA[0]))
        ratio = _ASPECT[0] * (_ASPECT[1] / _ASPECT[0]) ** aspect
        box_height, box_width = round(math.sqrt(pixels / ratio)), round(math.sqrt(pixels * ratio))
        if 0 < box_height <= height and 0 < box_width <= width:
            top, left = int(vertical * (height - box_height + 1)), int(horizontal * (width - box_width + 1))
            return top, left, box_height, box_width
    side_height = min(height, max(1, round(width / _ASPECT[0])))
    side_width = min(width, max(1, round(height * _ASPECT[1])))
    return (height - side_height) // 2, (width - side_width) // 2, side_height, side_width


def _collate(items: list[tuple[torch.Tensor, int] | str]) -> tuple[torch.Tensor, torch.Tensor] | str:
    """Stacked images and labels, or the first message."""
    samples = []
    for item in items:
        if isinstance(item, str):
            return item
        samples.append(item)
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


@tasks.register("image_folder")
def image_folder(
    root: str | Path,
    *,
    batch_size: int = 128,
    validation: int = 10000,
    size: int = 224,
    resize: int = 256,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    workers: int = 0,
    label_smoothing: float = 0.0,
) -> Classification:
    """Images as root/train/<class>/* and root/val/<class>/*; classes in alphabetical order, as torchvision has them.

    The val folder is the test split; the validation split is held out of the train folder. Training images are
    augmented by random resized crops and mirroring; all others are resized (Pillow, bilinear, antialiased) and cut
    in the centre.

    Args:
        root: Folder of train and val.
        batch_size: Samples per batch.
        validation: How many of the training images are held out, stratified by class.
        size: Height and width of the model's input.
        resize: Shorter side before the centre crop, at least ``size``.
        mean: Per channel, of values in [0, 1]; ImageNet's by default.
        std: Per channel; ImageNet's by default.
        workers: Decoding processes; 0 decodes in the calling one.
        label_smoothing: See ``Classification``.

    Raises:
        DataError: The layout is another, or an option is out of range; while iterating: an image is damaged.
    """
    if batch_size < 1 or workers < 0 or not 1 <= size <= resize:
        raise DataError(
            f"batch_size={batch_size}, workers={workers}, size={size}, resize={resize}: choose batch_size >= 1, "
            "workers >= 0 and 1 <= size <= resize"
        )
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise DataError(f"mean={[*mean]}, std={[*std]}: give three numbers each, std above 0")
    folder = Path(root)
    classes = _classes(folder / "train")
    unknown = sorted(set(_classes(folder / "val")) - set(classes))
    if unknown:
        raise DataError(f"{folder / 'val' / unknown[0]} has no counterpart in {folder / 'train'}; rename or remove it")
    training, test = _list_files(folder, "train", classes), _list_files(folder, "val", classes)
    splits = held_out(training, test, validation)
    preprocessing = Preprocessing(
        layout="NCHW",
        color="RGB",
        height=size,
        width=size,
        value_range=(0.0, 255.0),
        mean=tuple(mean),
        std=tuple(std),
        classes=classes,
        resize=resize,
        interpolation="bilinear, antialiased",
    )
    images = FolderImages(folder, splits, preprocessing, batch_size, workers, _digest(splits, preprocessing))
    return Classification("image_folder", images, label_smoothing)


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the sub-folders, sorted."""
    if not folder.is_dir():
        raise DataError(
            f"{folder} is not a folder; expected <root>/train/<class>/<image> and <root>/val/<class>/<image> "
            "(correct data.root)"
        )
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    if not names:
        raise DataError(f"{folder} holds no class folders; expected <class>/<image> in it")
    return names


def _list_files(root: Path, part: str, classes: tuple[str, ...]) -> LabelledFiles:
    """Every image below the class folders, in sorted order."""
    paths: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        folder = root / part / name
        found = sorted(
            (Path(where, file).relative_to(root).as_posix(), os.stat(os.path.join(where, file)).st_size)
            for where, _, files in os.walk(folder, followlinks=True)
            for file in files
            if file.lower().endswith(_SUFFIXES)
        )
        if not found and part == "train":
            raise DataError(f"{folder} holds no images ({', '.join(_SUFFIXES)}); fill or remove it")
        paths += [path for path, _ in found]
        sizes += [size for _, size in found]
        labels += [label] * len(found)
    if not paths:
        raise DataError(f"{root / part} holds no images ({', '.join(_SUFFIXES)}); fill it or correct data.root")
    return LabelledFiles(paths, sizes, torch.tensor(labels))


def _digest(splits: Mapping[Split, LabelledFiles], preprocessing: Preprocessing) -> str:
    digest = hashlib.sha256(json.dumps(preprocessing.to_json()).encode())
    for name, files in splits.items():
        digest.update(f"\n{name}\n".encode())
        for path, size in zip(files.paths, files.sizes, strict=True):
            digest.update(f"{path}\t{size}\n".encode())
    return digest.hexdigest()
