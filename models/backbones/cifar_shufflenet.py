"""ShuffleNet V1 and V2 for small images (Zhang et al. 2018; Ma et al. 2018).

The shapes and parameter counts are those of the CRD protocol (Tian et al. 2020), whose stem is a 1x1 convolution.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.calling import call
from .backbone import Backbone, Stage

STEM = 24


class GroupedUnit(nn.Module):
    """V1: grouped 1x1, 3x3 depthwise and grouped 1x1 convolution, the channels shuffled after the first.

    With stride 2 the pooled input is concatenated, otherwise the input is added; ReLU comes last. The unit that
    follows the stem does not group its first convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        convolved = out_channels - in_channels if stride == 2 else out_channels
        if convolved < 1 or convolved % (4 * groups):
            raise ValueError(
                f"a unit of {groups} groups convolves to a multiple of {4 * groups} channels, got {convolved}"
            )
        inner = convolved // 4
        self.stride = stride
        self.groups = 1 if in_channels == STEM else groups
        self.conv1 = nn.Conv2d(in_channels, inner, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, convolved, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(convolved)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        y = _shuffle(self.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return call(self.relu, torch.cat([y, self.pool(x)], dim=1) if self.stride == 2 else y + x)


class SplitUnit(nn.Module):
    """V2, stride 1: the second half of the channels is convolved, the first passes; then all are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        kept, y = x.chunk(2, dim=1)  # (B, C / 2, H, W) each
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(y)))))
        y = self.relu(self.bn3(self.conv3(y)))
        return _shuffle(torch.cat([kept, y], dim=1), 2)


class DownUnit(nn.Module):
    """V2, stride 2: two branches over all channels, layers 1 to 2 and 3 to 5, each giving half of the output."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = nn.Conv2d(half, half, 3, stride=2, padding=1, groups=half, bias=False)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / 2, W / 2)."""
        short = self.bn1(self.conv1(x))
        short = self.relu(self.bn2(self.conv2(short)))
        long = self.relu(self.bn3(self.conv3(x)))
        long = self.bn4(self.conv4(long))
        long = self.relu(self.bn5(self.conv5(long)))
        return _shuffle(torch.cat([short, long], dim=1), 2)


class CifarShuffleNetV1(Backbone):
    """The stem as a stage of its own, then three stages of units, each of which starts with stride 2.

    Images (B, 3, H, W) to maps of 1, 1/2, 1/4 and 1/8 of their size.

    Args:
        blocks: units of each stage after the stem.
        widths: their channels.
        groups: of the 1x1 convolutions.

    Raises:
        ValueError: what a stage adds to the channels before it is no positive multiple of 4 x groups.
    """

    def __init__(self, *, blocks: tuple[int, int, int], widths: tuple[int, int, int], groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _grouped_stage(STEM, widths[0], blocks[0], groups)
        self.layer2 = _grouped_stage(widths[0], widths[1], blocks[1], groups)
        self.layer3 = _grouped_stage(widths[1], widths[2], blocks[2], groups)
        self.widths = (STEM, *widths)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem, layer1, layer2 and layer3."""
        return self._first, self.layer1, self.layer2, self.layer3

    def _first(self, images: Tensor) -> Tensor:
        return call(self.relu, self.bn1(self.conv1(images)))


class CifarShuffleNetV2(Backbone):
    """The stem as a stage of its own, then three stages of a unit with stride 2 and ``blocks`` units without.

    Images (B, 3, H, W) to maps of 1, 1/2, 1/4 and 1/8 of their size; the last stage ends with a 1x1 convolution.

    Args:
        blocks: units with stride 1 of each stage after the stem.
        widths: channels of those stages' units.
        last: channels of the last convolution.

    Raises:
        ValueError: channels cannot be halved.
    """

    def __init__(self, *, blocks: tuple[int, int, int], widths: tuple[int, int, int], last: int) -> None:
        super().__init__()
        if any(width % 2 for width in widths):
            raise ValueError(f"the units of a ShuffleNet V2 halve their channels, got widths {widths}")
        self.conv1 = nn.Conv2d(3, STEM, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM)
        self.layer1 = _split_stage(STEM, widths[0], blocks[0])
        self.layer2 = _split_stage(widths[0], widths[1], blocks[1])
        self.layer3 = _split_stage(widths[1], widths[2], blocks[2])
        self.conv2 = nn.Conv2d(widths[2], last, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(last)
        self.relu = nn.ReLU(inplace=True)
        self.widths = (STEM, widths[0], widths[1], last)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem, layer1, layer2, and layer3 with the last convolution."""
        return self._first, self.layer1, self.layer2, self._last

    def _first(self, images: Tensor) -> Tensor:
        return call(self.relu, self.bn1(self.conv1(images)))

    def _last(self, x: Tensor) -> Tensor:
        return call(self.relu, self.bn2(self.conv2(self.layer3(x))))


def _shuffle(x: Tensor, groups: int) -> Tensor:
    grouped = torch.unflatten(x, 1, (groups, -1))  # (B, G, C / G, H, W)
    return grouped.transpose(1, 2).flatten(1, 2)  # (B, C, H, W)


def _grouped_stage(in_channels: int, width: int, blocks: int, groups: int) -> nn.Sequential:
    first = GroupedUnit(in_channels, width, 2, groups)
    return nn.Sequential(first, *(GroupedUnit(width, width, 1, groups) for _ in range(blocks - 1)))


def _split_stage(in_channels: int, width: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(DownUnit(in_channels, width), *(SplitUnit(width) for _ in range(blocks)))
