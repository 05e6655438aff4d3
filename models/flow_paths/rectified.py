"""Rectified flow: the straight path."""

import torch
from torch import Tensor

from .base import Schedule


class RectifiedFlow(Schedule):
    """Straight path: alpha = t, sigma = 1 - t, so the true velocity X_S - X_T is constant in time."""

    def alpha(self, t: Tensor) -> Tensor:
        """Return t."""
        return t

    def sigma(self, t: Tensor) -> Tensor:
        """Return 1 - t."""
        return 1 - t

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return -1."""
        return -torch.ones_like(t)

    def velocity_norm(self, t: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return None: the velocity is of the size of the features (arXiv 2402.02012, figure 4)."""
        return None

    def start(self, source: Tensor) -> Tensor:
        """Return X_S itself."""
        return source

    def recover_target(self, *, state: Tensor, velocity: Tensor, source: Tensor, time: float) -> Tensor:  # noqa: ARG002
        """Return X_S - v: the velocity alone is well conditioned at every time (arXiv 2402.02012, figure 4)."""
        return source - velocity
