"""Flow transfer: velocity, schedule and shape transform put together."""

import torch
from torch import Tensor, nn

from models.integrate import Velocity, euler, step_times
from models.schedules import Schedule


class FlowTransfer(nn.Module):
    """Move a student's feature towards the teacher by Euler steps (FM-KT, arXiv 2402.02012, figure 4).

    Args:
        velocity: called as ``velocity(x=states, t=times)``, states (B, ...), times (B,).
        schedule: the path; see ``models.schedules``.
        transform: maps an estimate (B, ...) to the teacher's space (B, ...).
    """

    def __init__(self, *, velocity: Velocity, schedule: Schedule, transform: nn.Module) -> None:
        super().__init__()
        self.velocity = velocity
        self.schedule = schedule
        self.transform = transform

    def estimates(self, x: Tensor, num_steps: int) -> list[Tensor]:
        """Return the ``num_steps`` estimates of X_T, each shaped like ``x`` (B, ...), along the chain from ``x``.

        Raises:
            ValueError: ``num_steps`` is less than 1.
        """
        return flow_estimates(self.velocity, self.schedule, x, num_steps)

    def step_outputs(self, x: Tensor, num_steps: int) -> list[Tensor]:
        """Return T(X_T_hat_i) for each of ``num_steps`` steps, each in the teacher's space (B, ...)."""
        return flow_step_outputs(self.velocity, self.schedule, self.transform, x, num_steps)

    def forward(self, x: Tensor, num_steps: int) -> Tensor:
        """Return mean_i T(X_T_hat_i), the implicit ensemble of the steps, in the teacher's space (B, ...)."""
        return torch.stack(self.step_outputs(x, num_steps)).mean(dim=0)


def flow_estimates(velocity: Velocity, schedule: Schedule, x: Tensor, num_steps: int) -> list[Tensor]:
    """Return the estimate of X_T at each step of the chain that starts at X_S = ``x`` (B, ...).

    Raises:
        ValueError: ``num_steps`` is less than 1.
    """
    chain = euler(velocity, x, num_steps)
    steps = zip(step_times(num_steps), chain.states[:-1], chain.velocities, strict=True)
    return [
        schedule.recover_target(state=state, velocity=v, source=x, t=x.new_full((x.shape[0],), time))
        for time, state, v in steps
    ]


def flow_step_outputs(
    velocity: Velocity, schedule: Schedule, transform: nn.Module, x: Tensor, num_steps: int
) -> list[Tensor]:
    """Return T(X_T_hat_i) for each of ``num_steps`` steps, each in the teacher's space (B, ...)."""
    return [transform(estimate) for estimate in flow_estimates(velocity, schedule, x, num_steps)]
