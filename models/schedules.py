"""Flow schedules: the weights of student and teacher along the path Z_t = alpha(t) X_S + sigma(t) X_T."""

from typing import Protocol

import torch
from torch import Tensor

from models.choice import choose


class Schedule(Protocol):
    """A path from the student (t = 1) to the teacher (t = 0), after FM-KT (arXiv 2402.02012, section 3).

    Every method takes times of shape (B,) and returns a tensor of the same shape and dtype.
    """

    def alpha(self, t: Tensor) -> Tensor:
        """Return the weight of the student's end."""

    def sigma(self, t: Tensor) -> Tensor:
        """Return the weight of the teacher's end."""

    def d_alpha(self, t: Tensor) -> Tensor:
        """Return d alpha / dt."""

    def d_sigma(self, t: Tensor) -> Tensor:
        """Return d sigma / dt."""

    def recover_target(self, *, state: Tensor, velocity: Tensor, source: Tensor, t: Tensor) -> Tensor:
        """Return the estimate of X_T that ``velocity`` implies at ``state``.

        ``state``, ``velocity`` and ``source`` (X_S) share one shape (B, ...); ``t`` has shape (B,).
        """


class RectifiedFlow:
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

    def recover_target(self, *, state: Tensor, velocity: Tensor, source: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002
        """Return X_S - v, the solution of v = alpha' X_S + sigma' X_T for alpha' = 1, sigma' = -1."""
        return source - velocity


SCHEDULES = {"rectified": RectifiedFlow}


def get_schedule(name: str) -> Schedule:
    """Return the schedule called ``name``.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return choose(SCHEDULES, name, kind="schedule")()
