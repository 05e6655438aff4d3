"""The networks for small images by name, as plain data: names can be checked without importing PyTorch."""

from typing import TypedDict


class ResNetShape(TypedDict):
    """Arguments of ``CifarResNet``."""

    depth: int
    widths: tuple[int, int, int, int]


class WideResNetShape(TypedDict):
    """Arguments of ``WideResNet``."""

    depth: int
    widen_factor: int


NARROW = (16, 16, 32, 64)
WIDE = (32, 64, 128, 256)

RESNETS: dict[str, ResNetShape] = {
    "resnet8": {"depth": 8, "widths": NARROW},
    "resnet20": {"depth": 20, "widths": NARROW},
    "resnet32": {"depth": 32, "widths": NARROW},
    "resnet56": {"depth": 56, "widths": NARROW},
    "resnet110": {"depth": 110, "widths": NARROW},
    "resnet8x4": {"depth": 8, "widths": WIDE},
    "resnet32x4": {"depth": 32, "widths": WIDE},
}
WIDE_RESNETS: dict[str, WideResNetShape] = {
    "wrn_16_2": {"depth": 16, "widen_factor": 2},
    "wrn_40_1": {"depth": 40, "widen_factor": 1},
    "wrn_40_2": {"depth": 40, "widen_factor": 2},
}
SMALL_IMAGE_BACKBONES = (*RESNETS, *WIDE_RESNETS)
