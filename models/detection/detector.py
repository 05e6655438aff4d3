"""Detectors: normalisation, backbone, pyramid and head, on a whole batch at once."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from ..backbones.backbone import Backbone
from ..layers.normalize import Normalize
from .places import Places


class Detector(nn.Module):
    """Normalisation, feature backbone, feature pyramid and head.

    Args:
        levels: the stages of the backbone, counted from 1, that the pyramid takes.
        pyramid: torchvision's.
        places: where the head looks; see ``models.detection.building``.
    """

    map_name = "level"
    """What a feature map is called."""

    def __init__(
        self,
        normalize: Normalize,
        backbone: Backbone,
        levels: Sequence[int],
        pyramid: FeaturePyramidNetwork,
        head: nn.Module,
        places: Places,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.backbone = backbone
        self.levels = tuple(levels)
        self.pyramid = pyramid
        self.head = head
        self.places = places

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Return the channels of each level of the pyramid."""
        return (self.places.rules.settings.width,) * len(self.places.strides)

    def forward(self, images: Tensor) -> Any:
        """Return what is answered at all places on images (B, 3, H, W) in [0, 1], see ``Rules.answered``."""
        return self.from_maps(self.feature_maps(images))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the levels of the pyramid, finest first, (B, C, H', W') each."""
        return pyramid_levels(self.normalize(images), self.backbone, self.levels, self.pyramid)

    def with_maps(self, images: Tensor) -> tuple[Any, list[Tensor]]:
        """Return what is answered at all places, and the ``feature_maps`` that it comes from."""
        maps = self.feature_maps(images)
        return self.from_maps(maps), maps

    def from_maps(self, maps: Sequence[Tensor]) -> Any:
        """Return what is answered at all places of images with ``feature_maps``."""
        return self.places.rules.answered(self.head, maps, self.places)


def pyramid_levels(
    x: Tensor, backbone: Backbone, levels: Sequence[int], pyramid: FeaturePyramidNetwork
) -> list[Tensor]:
    """Return the levels of ``pyramid`` on the stages ``levels`` of ``backbone``, for normalised images (B, 3, H, W)."""
    taken: OrderedDict[str, Tensor] = OrderedDict()
    for number, stage in enumerate(backbone.stages()[: max(levels)], start=1):
        x = stage(x)
        if number in levels:
            taken[str(number)] = x
    return list(pyramid(taken).values())
