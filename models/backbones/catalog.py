"""The networks for small images by name, as plain data: names can be checked without importing PyTorch."""

from typing import Any, NamedTuple


class BackboneConfig(NamedTuple):
    """How a named network is built."""

    family: str
    """Key of ``models.backbones.small_images.FAMILIES``."""
    arguments: dict[str, Any]
    """Arguments of the family's class."""


def _resnet(depth: int, *widths: int) -> BackboneConfig:
    return BackboneConfig("resnet", {"depth": depth, "widths": widths})


def _wide_resnet(depth: int, widen_factor: int) -> BackboneConfig:
    return BackboneConfig("wide_resnet", {"depth": depth, "widen_factor": widen_factor})


SMALL_IMAGE_BACKBONES: dict[str, BackboneConfig] = {
    "resnet8_x0_25": _resnet(8, 4, 4, 8, 16),
    "resnet8_x0_5": _resnet(8, 8, 8, 16, 32),
    "resnet8": _resnet(8, 16, 16, 32, 64),
    "resnet14": _resnet(14, 16, 16, 32, 64),
    "resnet20": _resnet(20, 16, 16, 32, 64),
    "resnet32": _resnet(32, 16, 16, 32, 64),
    "resnet56": _resnet(56, 16, 16, 32, 64),
    "resnet110": _resnet(110, 16, 16, 32, 64),
    "resnet8x4": _resnet(8, 32, 64, 128, 256),
    "resnet32x4": _resnet(32, 32, 64, 128, 256),
    "wrn_16_1": _wide_resnet(16, 1),
    "wrn_16_2": _wide_resnet(16, 2),
    "wrn_40_1": _wide_resnet(40, 1),
    "wrn_40_2": _wide_resnet(40, 2),
    "cifar_vgg8": BackboneConfig("vgg", {"blocks": ((64,), (128,), (256,), (512,), (512,))}),
    "cifar_vgg13": BackboneConfig("vgg", {"blocks": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512))}),
    "cifar_resnet50": BackboneConfig("bottleneck_resnet", {"blocks": (3, 4, 6, 3)}),
    "cifar_mobilenet_v2": BackboneConfig("mobilenet_v2", {"width": 0.5, "expansion": 6}),
    "cifar_shufflenet_v1": BackboneConfig(
        "shufflenet_v1", {"blocks": (4, 8, 4), "widths": (240, 480, 960), "groups": 3}
    ),
    "cifar_shufflenet_v2": BackboneConfig(
        "shufflenet_v2", {"blocks": (3, 7, 3), "widths": (116, 232, 464), "last": 1024}
    ),
}
"""Names with ``cifar_`` would otherwise mean torchvision's network for large images."""
