"""scikit-learn's digits: 1797 gray images of 8x8 pixels, shipped with the package, so that nothing is fetched."""

from __future__ import annotations

import torch

from automl_prune.tasks.base import tasks
from automl_prune.tasks.classification import Classification, held_out, stratified_holdout
from automl_prune.tasks.tensors import Augmentation, LabelledTensors, TensorImages

HIGHEST = 16.0
"""Raw values count the set pixels of 4x4 blocks."""


@tasks.register("digits")
def digits(
    *,
    batch_size: int = 64,
    validation: int = 300,
    test: int = 360,
    crop_padding: int = 1,
    label_smoothing: float = 0.0,
) -> Classification:
    """The UCI optical digits test set (Alpaydin & Kaynak 1998), split by class into train, val and test.

    Args:
        batch_size: Samples per batch.
        validation: Size of the validation split.
        test: Size of the test split.
        crop_padding: Padding of random crops in augmentation.
        label_smoothing: See ``Classification``.

    Raises:
        DataError: The splits are larger than the data.
    """
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    every = LabelledTensors(
        torch.tensor(bunch.images, dtype=torch.uint8).unsqueeze(1), torch.tensor(bunch.target, dtype=torch.int64)
    )
    rest, held = stratified_holdout(every.labels, test, seed=0)
    images = TensorImages.of(
        held_out(every.take(rest), every.take(held), validation),
        classes=tuple(str(label) for label in range(10)),
        batch_size=batch_size,
        augmentation=Augmentation(padding=crop_padding),
        highest=HIGHEST,
    )
    return Classification("digits", images, label_smoothing)
