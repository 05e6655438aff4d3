"""MobileNetV2 for small images (Sandler et al. 2018, table 2).

The shapes and parameter counts are those of the CRD protocol (Tian et al. 2020).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call
from ..layers.initialization import normal_by_fan_out
from .backbone import Backbone, Stage

GROUPS = ((16, 1, 1), (24, 2, 1), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1))
"""Channels at width 1, blocks, and stride of the first block; the paper's second group has stride 2."""


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise convolution and a linear 1x1 convolution; added to its input where shapes agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(inplace=True),
            nn.Conv2d(inner, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        return x + call(self.conv, x) if self.residual else self.conv(x)


class CifarMobileNetV2(Backbone):
    """Seven groups of inverted residuals between a 3x3 stem of stride 2 and a last 1x1 convolution.

    Images (B, 3, H, W) to maps of 1/2, 1/4, 1/8 and 1/16 of their size; the first three end linearly, the last with
    ReLU. As published for the protocol, and unlike the paper: ReLU instead of ReLU6, channels rounded down to whole
    numbers, and a 1x1 convolution in the first block too, although its expansion is 1.

    Args:
        width: factor of all channels, but of the last 1280 only where it is above 1.
        expansion: inner channels of a block per input channel.

    Raises:
        ValueError: a layer would have no channels.
    """

    def __init__(self, *, width: float, expansion: int) -> None:
        super().__init__()
        if int(GROUPS[0][0] * width) < 1 or expansion < 1:
            raise ValueError(f"width is at least 1/16 and expansion at least 1, got {width} and {expansion}")
        stem = int(32 * width)
        channels = [int(channels * width) for channels, _, _ in GROUPS]
        last = int(1280 * max(width, 1.0))
        self.conv1 = _convolution(3, stem, 3, stride=2)
        self.blocks = nn.ModuleList()
        for number, (_, blocks, stride) in enumerate(GROUPS):
            before = channels[number - 1] if number else stem
            self.blocks.append(_group(before, channels[number], blocks, stride, expansion if number else 1))
        self.conv2 = _convolution(channels[-1], last, 1, stride=1)
        self.widths = (channels[1], channels[2], channels[4], last)
        normal_by_fan_out(self)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem with groups 0 and 1, group 2, groups 3 and 4, and groups 5 and 6 with the last convolution."""
        return self._first, self.blocks[2], self._third, self._last

    def _first(self, images: Tensor) -> Tensor:
        return call(self.blocks[1], self.blocks[0](self.conv1(images)))

    def _third(self, x: Tensor) -> Tensor:
        return call(self.blocks[4], self.blocks[3](x))

    def _last(self, x: Tensor) -> Tensor:
        return call(self.conv2, self.blocks[6](self.blocks[5](x)))


def _convolution(in_channels: int, out_channels: int, size: int, *, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def _group(in_channels: int, out_channels: int, blocks: int, stride: int, expansion: int) -> nn.Sequential:
    first = InvertedResidual(in_channels, out_channels, stride, expansion)
    return nn.Sequential(
        first, *(InvertedResidual(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1))
    )
