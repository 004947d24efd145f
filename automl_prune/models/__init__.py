"""Small-image networks the experiments use; each factory takes at least ``num_classes`` and ``in_channels``."""

from automl_prune.models.resnet_cifar import resnet8, resnet20, resnet56

__all__ = ["resnet8", "resnet20", "resnet56"]
