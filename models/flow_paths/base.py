"""What every schedule is: the weights of student and teacher along the path Z_t = alpha(t) X_S + sigma(t) X_T."""

import functools
from typing import NamedTuple

import torch
from torch import Tensor


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

    def weights_at(self, time: float) -> Weights:
        """Return the weights, at ``time``, of the states that the chain visits."""
        return weights_of(self, time)

    def velocity_norm(self, t: Tensor) -> Tensor | None:
        """Return the magnitude of the velocity for ends of unit size, by which the meta-encoder's output is multiplied.

        Velocities of ``vp`` and ``ve`` span orders of magnitude. None: the meta-encoder gives the velocity as it is.
        """
        return torch.hypot(self.d_alpha(t), self.d_sigma(t))

    def start(self, source: Tensor) -> Tensor:
        """Return the state from which the chain starts: alpha(1) X_S, since the teacher is not known."""
        return self.weights_at(1.0).alpha * source

    def recover_target(self, *, state: Tensor, velocity: Tensor, source: Tensor, time: float) -> Tensor:
        """Return the estimate of X_T that ``velocity`` implies at ``state``; all share one shape (B, ...).

        The two equations z = alpha X_S + sigma X_T and v = alpha' X_S + sigma' X_T are solved in the sense of least
        squares: exact where they agree, and well conditioned where sigma or sigma' alone would vanish.
        """
        alpha, sigma, d_alpha, d_sigma = self.weights_at(time)
        norm = sigma**2 + d_sigma**2
        known = (sigma * alpha + d_sigma * d_alpha) / norm
        return (sigma / norm) * state + (d_sigma / norm) * velocity - known * source

    def velocity_toward(self, target: Tensor, *, source: Tensor, time: float) -> Tensor:
        """Return the true velocity alpha' X_S + sigma' X_T at ``time`` where X_T is ``target``, shaped like both."""
        _, _, d_alpha, d_sigma = self.weights_at(time)
        return d_alpha * source + d_sigma * target


@functools.cache
def weights_of(schedule: Schedule, time: float) -> Weights:
    """Return alpha, sigma and their derivatives of ``schedule`` at ``time``, computed in float64."""
    t = torch.tensor(time, dtype=torch.float64)
    functions = (schedule.alpha, schedule.sigma, schedule.d_alpha, schedule.d_sigma)
    return Weights(*(function(t).item() for function in functions))
