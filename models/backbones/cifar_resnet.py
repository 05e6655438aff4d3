"""ResNets for small images (He et al. 2016, section 4.2), with the widths and 1x1 shortcuts usual in distillation.

The shapes and parameter counts are those of the CRD protocol (Tian et al. 2020).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call
from ..layers.initialization import normal_by_fan_out
from .backbone import Backbone, Stage


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation and a shortcut; the second ReLU comes after the sum."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        return call(self.relu, self.bn2(self.conv2(y)) + self.downsample(x))


class CifarResNet(Backbone):
    """Three stages of (depth - 2) / 6 basic blocks, the stem in the first; maps of 1, 1/2 and 1/4 of the image's size.

    Args:
        depth: 6 n + 2 layers.
        widths: channels of the stem and of the three stages.

    Raises:
        ValueError: ``depth`` is not 6 n + 2.
    """

    def __init__(self, *, depth: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"a CIFAR ResNet has 6 n + 2 layers with n of at least 1, got depth {depth}")
        stem = widths[0]
        self.conv1 = nn.Conv2d(3, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(stem, widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.widths = widths[1:]
        normal_by_fan_out(self)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem with layer1, layer2 and layer3."""
        return self._first, self.layer2, self.layer3

    def _first(self, images: Tensor) -> Tensor:
        return call(self.layer1, self.relu(self.bn1(self.conv1(images))))


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
