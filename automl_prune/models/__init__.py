"""Small-image networks the experiments use; each factory takes ``num_classes`` and ``in_channels``."""

from automl_prune.models.densenet import densenet_bc
from automl_prune.models.lenet import lenet5
from automl_prune.models.mobilenet import mobilenet_v2
from automl_prune.models.resnet_cifar import resnet8, resnet20, resnet56
from automl_prune.models.vgg import vgg11, vgg16

__all__ = ["densenet_bc", "lenet5", "mobilenet_v2", "resnet8", "resnet20", "resnet56", "vgg11", "vgg16"]
