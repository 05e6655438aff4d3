"""The variance-exploding path."""

import math

import torch
from torch import Tensor

from .base import Schedule, Weights, weights_of


class VarianceExploding(Schedule):
    """alpha = s_min (s_max / s_min)^t, sigma = 1 (Song et al. 2021, VE).

    The chain visits the states divided by sqrt(alpha^2 + sigma^2). As they are, they begin a hundred times as large as
    X_S, and Euler steps of dZ/dt = ln(s_max / s_min) Z alternate in sign where there are fewer than 9 of them.
    """

    s_min = 0.02
    s_max = 100.0

    @property
    def rate(self) -> float:
        """Return ln(s_max / s_min), the growth of alpha."""
        return math.log(self.s_max / self.s_min)

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the student's end."""
        return self.s_min * (self.rate * t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Return 1."""
        return torch.ones_like(t)

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return alpha ln(s_max / s_min)."""
        return self.rate * self.alpha(t)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return 0."""
        return torch.zeros_like(t)

    def velocity_norm(self, t: Tensor) -> Tensor | None:
        """Return the speed at which the angle of (alpha, sigma) turns."""
        return self.d_alpha(t) / (1 + self.alpha(t) ** 2)

    def weights_at(self, time: float) -> Weights:
        """Return the weights divided by their norm, and the derivatives of these quotients."""
        alpha, sigma, d_alpha, d_sigma = weights_of(self, time)
        norm = math.hypot(alpha, sigma)
        turn = (alpha * d_sigma - sigma * d_alpha) / norm**2  # d/dt of the angle of (alpha, sigma)
        return Weights(alpha / norm, sigma / norm, -turn * sigma / norm, turn * alpha / norm)
