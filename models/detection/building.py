"""Detectors by name, with random weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from ..backbones.backbone import Backbone
from ..factory import build_parts
from ..layers.normalize import Normalize
from .detector import Detector, pyramid_levels
from .detectors import DETECTORS, EXTRA_LEVELS
from .places import Places, strides_of
from .rules import HeadSettings

LAST = 3
"""So many of the backbone's stages the pyramid takes where nothing else is said."""


class Choices(NamedTuple):
    """What can be chosen of a detector beside its backbone."""

    detector: str = "fcos"
    """A name of ``models.detection.detectors.DETECTORS``."""
    width: int = 256
    """Channels of the pyramid's levels and of the head."""
    num_convs: int = 4
    """Convolutions of each branch of the head."""
    levels: Sequence[int] | None = None
    """The stages of the backbone, counted from 1, that the pyramid takes; None: the last three."""
    extra: str = "p6p7"
    """What the pyramid has above them, of ``EXTRA_LEVELS``."""
    center_sampling_radius: float = 1.5
    """Of FCOS: so many strides around the centre of an object its places learn it."""


def build_detector(
    *,
    backbone: str,
    num_classes: int,
    image_size: Sequence[int],
    mean: Sequence[float],
    std: Sequence[float],
    **choices: Any,
) -> Detector:
    """Return a detector with random weights for images of ``image_size`` (H, W).

    Args:
        choices: those of ``Choices``, by their names.

    Raises:
        ValueError: a name is unknown; the backbone has no such stages; the head does not fit the width; or the levels
            do not divide the images evenly.
    """
    chosen, size = Choices(**choices), (image_size[0], image_size[1])
    entry = DETECTORS[chosen.detector]
    network = build_parts(backbone, num_classes, size).backbone
    taken = _levels(backbone, network, chosen.levels)
    pyramid = _pyramid(network, taken, chosen.width, chosen.extra)
    normalize = Normalize(mean, std)
    maps = _probed(nn.Sequential(network, pyramid), network, taken, pyramid, size)
    settings = HeadSettings(
        width=chosen.width,
        num_classes=num_classes,
        num_convs=chosen.num_convs,
        center_sampling_radius=chosen.center_sampling_radius,
        strides=strides_of(maps, size),
        image_size=size,
    )
    head = entry.load()(settings).build_head()
    if taken[-1] < len(network.widths):
        _freeze_idle(network, taken, pyramid, size)
    return Detector(normalize, network, taken, pyramid, head, Places(chosen.detector, settings, maps))


def _levels(name: str, backbone: Backbone, levels: Sequence[int] | None) -> tuple[int, ...]:
    count = len(backbone.widths)
    if not count:
        raise ValueError(f"backbone {name!r} has no feature maps for a pyramid: {backbone.why_uncut}; take another")
    taken = tuple(levels) if levels is not None else tuple(range(max(1, count - LAST + 1), count + 1))
    if list(taken) != sorted(set(taken)) or not taken or taken[0] < 1 or taken[-1] > count:
        found = ", ".join(f"{number} ({width} channels)" for number, width in enumerate(backbone.widths, start=1))
        raise ValueError(
            f"detector.levels: got {list(taken)} of backbone {name!r}; give stages in ascending order, each "
            f"once; its stages: {found}"
        )
    return taken


def _pyramid(backbone: Backbone, levels: Sequence[int], width: int, extra: str) -> FeaturePyramidNetwork:
    channels = [backbone.widths[level - 1] for level in levels]
    return FeaturePyramidNetwork(channels, width, extra_blocks=_extra_levels(extra, channels[-1], width))


def _extra_levels(name: str, channels: int, width: int) -> ExtraFPNBlock:
    if name not in EXTRA_LEVELS:
        raise ValueError(f"detector.extra: got {name!r}; give one of {', '.join(EXTRA_LEVELS)}")
    if name == "pool":
        return LastLevelMaxPool()
    block = LastLevelP6P7(width if name == "p6p7" else channels, width)
    block.use_P5 = name == "p6p7"  # torchvision tells them apart by their channels, which may be the same
    return block


def _freeze_idle(
    backbone: Backbone, levels: Sequence[int], pyramid: FeaturePyramidNetwork, size: tuple[int, int]
) -> None:
    """Let no parameter of ``backbone`` learn on which no level depends; processes wait for those that never come."""
    parameters = list(backbone.parameters())
    backbone.eval()  # so that its running statistics stay
    maps = pyramid_levels(torch.zeros(1, 3, *size), backbone, levels, pyramid)
    backbone.train()
    gradients = torch.autograd.grad(torch.stack([level.sum() for level in maps]).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


@torch.no_grad()
def _probed(
    parts: nn.Module, backbone: Backbone, levels: Sequence[int], pyramid: FeaturePyramidNetwork, size: tuple[int, int]
) -> list[Tensor]:
    """Return the levels of the pyramid of a black image; the networks stay as they are."""
    parts.eval()
    try:
        return pyramid_levels(torch.zeros(1, 3, *size), backbone, levels, pyramid)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the pyramid does not take images of {size[0]} x {size[1]} pixels ({reason})") from error
    finally:
        parts.train()
