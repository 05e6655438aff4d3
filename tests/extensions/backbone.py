"""A source of backbones: one network of two stages."""

from collections.abc import Sequence

from torch import nn

from models.backbones.backbone import Backbone, BackboneAndHead, Stage
from models.layers.shape_transform import LogitTransform


class TwoStages(Backbone):
    """Two convolutions, the second with stride 2."""

    widths = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 16, 3, 2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())

    def eager_stages(self) -> Sequence[Stage]:
        """Return the two convolutions."""
        return [self.first, self.second]


def build_two_stages(name: str, num_classes: int, image_size: Sequence[int] | None) -> BackboneAndHead:  # noqa: ARG001
    """Return the network with random weights."""
    backbone = TwoStages()
    return BackboneAndHead(backbone, LogitTransform(backbone.channels, num_classes))
