"""The models of the benchmark: torchvision's families and timm's, with random weights.

An entry is a name, a kind and how to build it. Inputs are as small as each architecture allows, which changes no
channel. ``cnn`` means that nothing but convolutions, norms, pointwise gates and pools mixes positions and channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

CLASSES = 11
"""Outputs of every classifier; no hidden layer of any model here is that wide."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One model.

    Attributes:
        name: ``source/model``.
        kind: ``cnn``, ``attention`` (anything with attention or token mixing), ``segmentation`` or ``backbone``.
        build: Makes a fresh instance; weights are drawn from torch's global generator.
        size: Height and width of its input.
    """

    name: str
    kind: str
    build: Callable[[], nn.Module]
    size: int

    def inputs(self, samples: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
        """Random images, shape (samples, 3, size, size)."""
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(samples, 3, self.size, self.size, generator=generator),)


_TORCHVISION_CNN = {
    "alexnet": 64, "vgg11": 32, "vgg16_bn": 32, "resnet18": 64, "resnet50": 64, "resnext50_32x4d": 64,
    "wide_resnet50_2": 64, "densenet121": 64, "densenet161": 64, "googlenet": 64, "inception_v3": 299,
    "mnasnet0_5": 64, "mnasnet1_0": 64, "mobilenet_v2": 64, "mobilenet_v3_small": 64, "mobilenet_v3_large": 64,
    "efficientnet_b0": 64, "efficientnet_v2_s": 64, "regnet_x_400mf": 64, "regnet_y_400mf": 64,
    "shufflenet_v2_x0_5": 64, "shufflenet_v2_x1_0": 64, "squeezenet1_0": 64, "squeezenet1_1": 64,
    "convnext_tiny": 64,
}  # fmt: skip
_TORCHVISION_ATTENTION = {"swin_t": 64, "swin_v2_t": 64, "vit_b_16": 224, "maxvit_t": 224}
_FRESH: dict[str, dict[str, Any]] = {
    "googlenet": {"init_weights": False, "aux_logits": True},  # its own initialisation takes a minute
    "inception_v3": {"init_weights": False, "aux_logits": True},
}

_TIMM_CNN = {
    "resnet10t": 64, "resnet26d": 64, "resnetaa50": 64, "resnetblur18": 64, "resnetrs50": 64, "seresnet18": 64,
    "ecaresnet26t": 64, "ecaresnext26t_32x4d": 64, "resnet50_gn": 64, "resnetv2_18": 64, "resnetv2_50x1_bit": 64,
    "resnetv2_50d_gn": 64, "resnetv2_50d_evos": 64, "skresnet18": 64, "skresnext50_32x4d": 64,
    "legacy_seresnet18": 64, "legacy_seresnext26_32x4d": 64, "res2net50_14w_8s": 64, "res2next50": 64,
    "resnest14d": 64, "resnest50d_4s2x40d": 64, "rexnet_100": 64, "rexnetr_100": 64, "regnetx_002": 64,
    "regnety_002": 64, "regnetz_005": 64, "regnetv_040": 64, "gernet_s": 64, "gcresnext26ts": 64, "gcresnet33ts": 64,
    "bat_resnext26ts": 256, "dpn48b": 64, "dpn68": 64, "densenet121": 64, "densenetblur121d": 64, "dla34": 64,
    "dla46x_c": 64, "dla60_res2net": 64, "hrnet_w18_small": 64, "inception_v3": 299, "inception_v4": 128,
    "inception_resnet_v2": 128, "legacy_xception": 64, "xception41": 64, "xception41p": 64, "nasnetalarge": 96,
    "pnasnet5large": 96, "cspresnet50": 64, "cspresnext50": 64, "cspdarknet53": 64, "cs3darknet_s": 64,
    "cs3sedarknet_l": 64, "darknet17": 64, "darknet53": 64, "cspnext_tiny": 64, "vovnet39a": 64,
    "ese_vovnet19b_slim": 64, "ese_vovnet19b_dw": 64, "eca_vovnet39b": 64, "selecsls42b": 64, "tresnet_m": 64,
    "efficientnet_b0": 64, "tf_efficientnet_b0": 64, "tf_efficientnetv2_b0": 64, "efficientnet_lite0": 64,
    "efficientnet_es": 64, "efficientnet_b0_gn": 64, "efficientnet_blur_b0": 64, "gc_efficientnetv2_rw_t": 64,
    "mixnet_s": 64, "tf_mixnet_s": 64, "mobilenetv1_100": 64, "mobilenetv2_050": 64, "mobilenetv3_small_050": 64,
    "tf_mobilenetv3_small_minimal_100": 64, "mobilenetv4_conv_small_035": 64, "hardcorenas_a": 64,
    "fbnetc_100": 64, "fbnetv3_b": 64, "lcnet_035": 64, "lcnetv2_small": 64, "mnasnet_small": 64, "tinynet_e": 64,
    "semnasnet_075": 64, "spnasnet_100": 64, "mobilenet_edgetpu_v2_xs": 64, "ghostnet_050": 64, "ghostnetv2_100": 64,
    "ghostnetv3_050": 64, "nfnet_l0": 64, "dm_nfnet_f0": 64, "eca_nfnet_l0": 64, "nf_resnet26": 64, "nf_regnet_b0": 64,
    "nf_seresnet26": 64, "repvgg_a0": 64, "repvgg_b1g4": 64, "repghostnet_050": 64, "mobileone_s0": 64,
    "convnext_atto": 64, "convnext_atto_rms": 64, "convnextv2_atto": 64, "convmixer_768_32": 63, "hgnet_tiny": 64,
    "hgnetv2_b0": 64, "inception_next_atto": 64, "starnet_s050": 64, "rdnet_tiny": 64, "fasternet_t0": 64,
    "repvit_m0_9": 64, "mambaout_femto": 64, "vgg11_bn": 32,
}  # fmt: skip
_TIMM_ATTENTION = {
    "edgenext_xx_small": 64, "efficientformer_l1": 224, "efficientformerv2_s0": 224, "efficientvit_b0": 64,
    "efficientvit_l1": 64, "efficientvit_m0": 224, "fastvit_t8": 64, "fastvit_sa12": 64, "levit_128s": 224,
    "levit_conv_128s": 224, "mobilevit_xxs": 64, "mobilevitv2_050": 64, "mobilenetv4_hybrid_medium": 64,
    "poolformer_s12": 64, "poolformerv2_s12": 64, "convformer_s18": 64, "caformer_s18": 64, "pvt_v2_b0": 64,
    "swin_tiny_patch4_window7_224": 224, "swinv2_tiny_window8_256": 256, "swinv2_cr_tiny_224": 224,
    "twins_pcpvt_small": 224, "twins_svt_small": 224, "vit_tiny_patch16_224": 224, "vit_small_patch32_224": 224,
    "vit_tiny_r_s16_p8_224": 224, "vit_relpos_small_patch16_224": 224, "deit_tiny_patch16_224": 224,
    "deit_tiny_distilled_patch16_224": 224, "deit3_small_patch16_224": 224, "beit_base_patch16_224": 224,
    "eva02_tiny_patch14_224": 224, "cait_xxs24_224": 224, "xcit_nano_12_p16_224": 224, "coat_lite_tiny": 224,
    "coat_tiny": 224, "crossvit_9_240": 240, "volo_d1_224": 224, "visformer_tiny": 224, "convit_tiny": 224,
    "pit_ti_224": 224, "tnt_s_patch16_224": 224, "nest_tiny": 224, "mvitv2_tiny": 224, "hiera_tiny_224": 224,
    "mixer_s32_224": 224, "gmlp_ti16_224": 224, "resmlp_12_224": 224, "gmixer_12_224": 224, "focalnet_tiny_srf": 64,
    "gcvit_xxtiny": 224, "davit_tiny": 224, "maxvit_pico_rw_256": 256, "coatnet_pico_rw_224": 224,
    "coatnext_nano_rw_224": 224, "tiny_vit_5m_224": 224, "nextvit_small": 64, "sequencer2d_s": 224,
    "botnet26t_256": 256, "halonet26t": 256, "lambda_resnet26t": 256, "swiftformer_xs": 224, "shvit_s1": 64,
    "efficientvim_m1": 224, "samvit_base_patch16_224": 224, "resnet50_clip": 224,
}  # fmt: skip


class Maps(nn.Module):
    """A detector's backbone, which returns a dict of feature maps."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone = detector.backbone

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name."""
        found: dict[str, torch.Tensor] = self.backbone(x)
        return found


def catalogue() -> dict[str, Entry]:
    """Every model by name, torchvision first; timm's are left out where it is not installed."""
    return {entry.name: entry for source in (_torchvision(), _dense_outputs(), _timm()) for entry in source}


def _torchvision() -> Iterator[Entry]:
    from torchvision import models

    for kind, sizes in (("cnn", _TORCHVISION_CNN), ("attention", _TORCHVISION_ATTENTION)):
        for name, size in sizes.items():
            yield Entry(
                f"torchvision/{name}", kind, _call(models, name, num_classes=CLASSES, **_FRESH.get(name, {})), size
            )


def _dense_outputs() -> Iterator[Entry]:
    from torchvision.models import detection, segmentation

    bare = {"weights": None, "weights_backbone": None}
    for name, extra in {
        "fcn_resnet50": {"aux_loss": True}, "deeplabv3_resnet50": {"aux_loss": True},
        "deeplabv3_mobilenet_v3_large": {"aux_loss": True}, "lraspp_mobilenet_v3_large": {},
    }.items():  # fmt: skip
        build = _call(segmentation, name, num_classes=CLASSES, **bare, **extra)
        yield Entry(f"torchvision/{name}", "segmentation", build, 64)
    for name in (
        "fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn",
        "maskrcnn_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large", "ssd300_vgg16",
    ):  # fmt: skip
        size = {"ssdlite320_mobilenet_v3_large": 320, "ssd300_vgg16": 300}.get(name, 64)
        yield Entry(f"torchvision/{name}.backbone", "backbone", _backbone(_call(detection, name, **bare)), size)


def _timm() -> Iterator[Entry]:
    try:
        import timm
    except ImportError:
        return
    for kind, sizes in (("cnn", _TIMM_CNN), ("attention", _TIMM_ATTENTION)):
        for name, size in sizes.items():
            build = _call(timm, "create_model", name, pretrained=False, num_classes=CLASSES)
            yield Entry(f"timm/{name}", kind, build, size)


def _call(module: Any, function: str, *args: Any, **kwargs: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(module, function)(*args, **kwargs)


def _backbone(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Maps(build())
