"""The variance-preserving path."""

from torch import Tensor

from .base import Schedule


class VariancePreserving(Schedule):
    """alpha = exp(-a (1 - t)^2 / 4 - b (1 - t) / 2), sigma = sqrt(1 - alpha^2) (Song et al. 2021, VP).

    Times are clamped to [1e-3, 1 - 1e-3]: sigma' is unbounded at t = 1.
    """

    a = 19.9
    b = 0.1
    margin = 1e-3

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the student's end."""
        return (-0.25 * self.a * self._remaining(t) ** 2 - 0.5 * self.b * self._remaining(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the teacher's end."""
        return (1 - self.alpha(t) ** 2).sqrt()

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return alpha (a (1 - t) + b) / 2."""
        return self.alpha(t) * (0.5 * self.a * self._remaining(t) + 0.5 * self.b)

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return -alpha alpha' / sigma."""
        return -self.alpha(t) * self.d_alpha(t) / self.sigma(t)

    def _remaining(self, t: Tensor) -> Tensor:
        return 1 - t.clamp(self.margin, 1 - self.margin)
