"""``conv`` and ``conv_mobile``: the authors' convolutional bodies, and one for light students."""

from torch import nn


def conv_body(channels: int) -> nn.Sequential:
    """Return SiLU, 3x3 convolution, GroupNorm(1), SiLU, 3x3 convolution, without biases."""
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.GroupNorm(1, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    )


def conv_mobile_body(channels: int) -> nn.Sequential:
    """Return ReLU, 1x1 convolution, GroupNorm(1), ReLU, depthwise 3x3 convolution, without biases."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.GroupNorm(1, channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
    )
