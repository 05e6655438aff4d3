"""Explicit Euler integration from t = 1 to t = 0: the only place where the chain is written."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .core.numbers import positive
from .core.precision import precise_dtype
from .core.tensors import require_like, require_shape, require_tensor


class Velocity(Protocol):
    """A velocity field dZ/dt."""

    def __call__(self, *, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity at states ``x`` of shape (B, ...) and times ``t`` of shape (B,), shaped like ``x``."""


class Trajectory(NamedTuple):
    """One Euler chain."""

    states: list[Tensor]
    """num_steps + 1 states (B, ...): the start first, the final state last."""
    velocities: list[Tensor]
    """num_steps velocities (B, ...): entry i was evaluated at ``states[i]`` and time 1 - i / num_steps."""
    estimates: Sequence[Tensor] = ()
    """num_steps estimates (B, ...) of X_T, one at each state but the last; none where no schedule recovers them."""


def step_times(num_steps: int) -> list[float]:
    """Return the times that a chain of ``num_steps`` steps visits: 1 - i / num_steps, never 0.

    Raises:
        ValueError: ``num_steps`` is less than 1.
    """
    positive("num_steps", num_steps)
    return [1 - i / num_steps for i in range(num_steps)]


def step_times_like(x: Tensor, num_steps: int) -> Tensor:
    """Return ``step_times`` as a tensor (num_steps,) made on the device of ``x``; float32 at least."""
    return (1 - torch.arange(num_steps, device=x.device, dtype=torch.float64) / num_steps).to(precise_dtype(x))


def euler(velocity: Velocity, x: Tensor, num_steps: int) -> Trajectory:
    """Integrate Z_{i+1} = Z_i - v(Z_i, t_i) / N from Z_0 = ``x``, with t_i = 1 - i / N.

    Source: FM-KT, arXiv 2402.02012, figure 4. ``x`` has shape (B, ...). Time runs from 1 (student) towards 0 (teacher),
    so a step subtracts. Times are float32 at least: in the half precision of automatic mixed precision 0.999 is 1.

    Raises:
        ValueError: ``num_steps`` is less than 1, ``x`` is no batch of floating-point numbers, or a velocity is not
            shaped like it.
    """
    require_tensor("x", x)
    require_shape("x", x, "B", ...)
    states, velocities = [x], []
    for time in step_times(num_steps):
        v = velocity(x=x, t=x.new_full((x.shape[0],), time, dtype=precise_dtype(x)))
        require_like("velocity", v, x, whose="the state's", came="returned")
        x = x - v / num_steps
        states.append(x)
        velocities.append(v)
    return Trajectory(states, velocities)
