"""A meta-encoder whose last layer is not affine, so that no number of steps folds into its weights."""

from torch import nn


def bounded_body(channels: int) -> nn.Sequential:
    """Return a 3x3 convolution, SiLU, a 1x1 convolution and tanh."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1), nn.SiLU(), nn.Conv2d(channels, channels, 1), nn.Tanh()
    )
