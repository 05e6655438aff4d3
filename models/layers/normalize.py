"""Input normalisation as the first layer, so that every network here takes RGB images in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Return (image - mean) / std for each channel of images (B, 3, H, W) in [0, 1].

    Mean and std are settings, kept beside the weights rather than among them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the normalised images (B, 3, H, W)."""
        return (images - self.mean) / self.std
