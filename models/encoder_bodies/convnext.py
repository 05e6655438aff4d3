"""``convnext``: a ConvNeXt block."""

from torch import nn

from .mlp import ChannelLayerNorm

EXPANSION = 4


def convnext_body(channels: int) -> nn.Sequential:
    """Return depthwise 7x7 convolution, channel layer normalisation, and two 1x1 convolutions with a GELU between.

    The first widens the channels fourfold (Liu et al. 2022). The block's skip connection is the flow's own: a step adds
    what the velocity says to the state.
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
        ChannelLayerNorm(channels),
        nn.Conv2d(channels, EXPANSION * channels, 1),
        nn.GELU(),
        nn.Conv2d(EXPANSION * channels, channels, 1),
    )
