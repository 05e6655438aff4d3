"""``mlp``: residual 1x1 convolutions."""

from torch import Tensor, nn

from ..core.calling import call


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), each position on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        return call(self.norm, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Residual(nn.Module):
    """1x1 convolution, ReLU, 1x1 convolution, and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + call(self.layers, x)


def mlp_body(channels: int) -> nn.Sequential:
    """Return two residual 1x1-convolution blocks, each with channel layer normalisation."""
    return nn.Sequential(Residual(channels), ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels))
