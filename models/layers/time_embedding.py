"""Sinusoidal time embedding with a two-layer projection."""

import math

import torch
from torch import Tensor, nn

from ..core.calling import call


def sinusoidal_embedding(t: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Return [cos(t w_j), sin(t w_j)] with w_j = max_period^(-j / (width // 2)) (Vaswani et al. 2017).

    ``t`` has shape (B,); the result has shape (B, width), its last column 0 where ``width`` is odd.
    """
    half = width // 2
    exponents = torch.arange(half, device=t.device, dtype=t.dtype) / max(half, 1)
    angles = t[:, None] * torch.exp(-math.log(max_period) * exponents)  # (B, half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)  # (B, 2 * half)
    return nn.functional.pad(embedding, (0, width - 2 * half))  # (B, width)


class TimeEmbedding(nn.Module):
    """Map times (B,) to vectors (B, width): sinusoids of ``scale`` * t, then Linear-ReLU-Linear.

    With ``scale`` 1 (the authors' setting) the sinusoids hardly move over t in (0, 1]; a larger scale spreads them.
    """

    def __init__(self, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        self.width = width
        self.scale = scale
        self.project = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        """Return the embedding (B, width) of times ``t`` (B,)."""
        sinusoids = sinusoidal_embedding(self.scale * t, self.width)  # in float32 at least, whatever the weights are
        return call(self.project, sinusoids.to(next(self.project.parameters()).dtype))
