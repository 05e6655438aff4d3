"""Wide residual networks for small images (Zagoruyko and Komodakis 2016): pre-activation blocks."""

from collections.abc import Sequence

from torch import Tensor, nn

from ..core.calling import call
from ..layers.initialization import normal_by_fan_out
from .backbone import Backbone, Stage


class PreActivationBlock(nn.Module):
    """BatchNorm-ReLU-convolution twice; where the shape changes, the shortcut starts after the first activation."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, H, W) to (B, out, H / stride, W / stride)."""
        activated = self.relu(self.bn1(x))
        y = call(self.conv2, self.relu(self.bn2(self.conv1(activated))))
        shortcut = x if self.shortcut is None else call(self.shortcut, activated)
        return y + shortcut


class WideResNet(Backbone):
    """Three stages of (depth - 4) / 6 blocks, the stem in the first; maps of 1, 1/2 and 1/4 of the image's size.

    The last stage ends with batch normalisation and ReLU.

    Args:
        depth: 6 n + 4 layers.
        widen_factor: k; the stages have 16 k, 32 k and 64 k channels.

    Raises:
        ValueError: ``depth`` is not 6 n + 4.
    """

    published_names = ((r"^block(\d)\.layer\.", r"layer\1."), (r"\.convShortcut\.", ".shortcut."))

    def __init__(self, *, depth: int, widen_factor: int) -> None:
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f"a wide ResNet has 6 n + 4 layers with n of at least 1, got depth {depth}")
        widths = [16, 16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.layer1 = _stage(widths[0], widths[1], blocks, stride=1)
        self.layer2 = _stage(widths[1], widths[2], blocks, stride=2)
        self.layer3 = _stage(widths[2], widths[3], blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.relu = nn.ReLU(inplace=True)
        self.widths = (widths[1], widths[2], widths[3])
        normal_by_fan_out(self)

    def eager_stages(self) -> Sequence[Stage]:
        """Return stem with layer1, layer2, and layer3 with the last normalisation and activation."""
        return self._first, self.layer2, self._last

    def _first(self, images: Tensor) -> Tensor:
        return call(self.layer1, self.conv1(images))

    def _last(self, x: Tensor) -> Tensor:
        return call(self.relu, self.bn1(self.layer3(x)))


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
