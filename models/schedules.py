"""Flow schedules: the weights of student and teacher along the path Z_t = alpha(t) X_S + sigma(t) X_T."""

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from models.choice import choose


class Weights(NamedTuple):
    """Weights of the path at one time, and their derivatives."""

    alpha: float
    sigma: float
    d_alpha: float
    d_sigma: float


class Schedule:
    """A path from the student (t = 1) to the teacher (t = 0), after FM-KT (arXiv 2402.02012, section 3).

    ``alpha``, ``sigma`` and their derivatives take times of any shape and return a tensor of that shape and dtype.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the student's end."""
        raise NotImplementedError

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the teacher's end."""
        raise NotImplementedError

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return d alpha / dt."""
        raise NotImplementedError

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return d sigma / dt."""
        raise NotImplementedError

    def walked(self, time: float) -> Weights:
        """Return the weights, at ``time``, of the states that the chain walks."""
        return _weights(self, time)

    def velocity_norm(self, t: Tensor) -> Tensor | None:
        """Return the magnitude of the velocity for ends of unit size, by which the meta-encoder's output is multiplied.

        Velocities of ``vp`` and ``ve`` span orders of magnitude. None: the meta-encoder gives the velocity as it is.
        """
        return torch.hypot(self.d_alpha(t), self.d_sigma(t))

    def start(self, source: Tensor) -> Tensor:
        """Return the state from which the chain starts: alpha(1) X_S, since the teacher is not known."""
        return self.walked(1.0).alpha * source

    def recover_target(self, *, state: Tensor, velocity: Tensor, source: Tensor, time: float) -> Tensor:
        """Return the estimate of X_T that ``velocity`` implies at ``state``; all share one shape (B, ...).

        The two equations z = alpha X_S + sigma X_T and v = alpha' X_S + sigma' X_T are solved in the sense of least
        squares: exact where they agree, and well conditioned where sigma or sigma' alone would vanish.
        """
        alpha, sigma, d_alpha, d_sigma = self.walked(time)
        norm = sigma**2 + d_sigma**2
        known = (sigma * alpha + d_sigma * d_alpha) / norm
        return (sigma / norm) * state + (d_sigma / norm) * velocity - known * source


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


class VarianceExploding(Schedule):
    """alpha = s_min (s_max / s_min)^t, sigma = 1 (Song et al. 2021, VE).

    The chain walks the states divided by sqrt(alpha^2 + sigma^2). As they are, they begin a hundred times as large as
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

    def walked(self, time: float) -> Weights:
        """Return the weights divided by their norm, and the derivatives of these quotients."""
        alpha, sigma, d_alpha, d_sigma = _weights(self, time)
        norm = math.hypot(alpha, sigma)
        turn = (alpha * d_sigma - sigma * d_alpha) / norm**2  # d/dt of the angle of (alpha, sigma)
        return Weights(alpha / norm, sigma / norm, -turn * sigma / norm, turn * alpha / norm)


@functools.cache
def _weights(schedule: Schedule, time: float) -> Weights:
    t = torch.tensor(time, dtype=torch.float64)
    functions = (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    return Weights(*(function(t).item() for function in functions))


SCHEDULES: dict[str, Schedule] = {
    "rectified": RectifiedFlow(),
    "vp": VariancePreserving(),
    "ve": VarianceExploding(),
}


def get_schedule(name: str) -> Schedule:
    """Return the schedule called ``name``.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return choose(SCHEDULES, name, kind="schedule")
