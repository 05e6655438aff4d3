"""Bottleneck ResNets (He et al. 2016, table 1) with a stem for small images: 3x3, stride 1, no pooling.

The shapes and parameter counts are those of the CRD protocol (Tian et al. 2020).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call
from ..layers.initialization import normal_by_fan_out
from .backbone import Backbone, Stage

STEM = 64
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution with batch normalisation and a shortcut; the 3x3 one takes the stride."""

    def __init__(self, in_channels: int, inner: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * inner
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, 4 inner, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return call(self.relu, self.bn3(self.conv3(y)) + self.shortcut(x))


class BottleneckResNet(Backbone):
    """Four stages of bottlenecks, the stem in the first, with 256, 512, 1024 and 2048 channels.

    Images (B, 3, H, W) to maps of 1, 1/2, 1/4 and 1/8 of their size.

    Args:
        blocks: bottlenecks of each stage.

    Raises:
        ValueError: a stage has no bottleneck.
    """

    def __init__(self, *, blocks: tuple[int, int, int, int]) -> None:
        super().__init__()
        if min(blocks) < 1:
            raise ValueError(f"each stage of a ResNet has one or more blocks, got {blocks}")
        self.conv1 = nn.Conv2d(3, STEM, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(STEM, 64, blocks[0], stride=1)
        self.layer2 = _stage(256, 128, blocks[1], stride=2)
        self.layer3 = _stage(512, 256, blocks[2], stride=2)
        self.layer4 = _stage(1024, 512, blocks[3], stride=2)
        self.widths = (256, 512, 1024, 2048)
        normal_by_fan_out(self)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem with layer1, layer2, layer3 and layer4."""
        return self._first, self.layer2, self.layer3, self.layer4

    def _first(self, images: Tensor) -> Tensor:
        return call(self.layer1, self.relu(self.bn1(self.conv1(images))))


def _stage(in_channels: int, inner: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = Bottleneck(in_channels, inner, stride)
    return nn.Sequential(first, *(Bottleneck(EXPANSION * inner, inner, 1) for _ in range(blocks - 1)))
