"""Wide residual networks for small images (Zagoruyko and Komodakis 2016): pre-activation blocks."""

from torch import Tensor, nn


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
        y = self.conv2(self.relu(self.bn2(self.conv1(activated))))
        return y + (x if self.shortcut is None else self.shortcut(activated))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Stem and three stages of (depth - 4) / 6 blocks; images (B, 3, H, W) to features (B, 64 k, H / 4, W / 4).

    Args:
        depth: 6 n + 4 layers.
        widen_factor: k; the stages have 16 k, 32 k and 64 k channels.

    Raises:
        ValueError: ``depth`` is not 6 n + 4.
    """

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
        self.channels = widths[3]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature map, normalised and activated."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.relu(self.bn1(x))  # type: ignore[no-any-return]


def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
    first = PreActivationBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))
