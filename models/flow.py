"""Flow transfer: velocity, schedule and shape transform put together."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, get_args

import torch
from torch import Tensor, nn

from .core.calling import call
from .core.numbers import positive
from .core.precision import precise_dtype
from .core.tensors import require_like, require_shape, require_tensor, require_type_of
from .flow_paths.base import Schedule
from .integrate import Trajectory, Velocity, euler, step_times
from .layers.shape_transform import LogitTransform
from .meta_encoder import MetaEncoder
from .meta_encoders import InitialWeights, Predicts, build_meta_encoder
from .schedules import get_schedule


class FlowTransfer(nn.Module):
    """Move a student's feature towards the teacher by Euler steps (FM-KT, arXiv 2402.02012, figure 4).

    Args:
        velocity: called as ``velocity(x=states, t=times)``, states (B, ...), times (B,). The states are those of the
            trajectory: divided by the norm of the weights for ``ve``, as they are for the others.
        schedule: the path; see ``get_schedule``.
        transform: maps an estimate (B, ...) to the teacher's space (B, ...).
        predicts: what ``velocity`` returns: that, or the estimate of X_T, from which the velocity follows by the path.

    Raises:
        ValueError: ``predicts`` is neither.
    """

    def __init__(
        self, *, velocity: Velocity, schedule: Schedule, transform: nn.Module, predicts: Predicts = "velocity"
    ) -> None:
        super().__init__()
        if predicts not in get_args(Predicts):
            raise ValueError(f"predicts: got {predicts!r}; give {' or '.join(get_args(Predicts))}")
        self.predicts = predicts
        self.velocity = velocity
        self.schedule = schedule
        self.transform = transform

    def require_source(self, name: str, x: Any) -> None:
        """Raise ValueError where ``x``, the argument ``name``, is nothing that the flow can start from.

        That is (B, C, H, W) of the channels and the type of its meta-encoder; (B, ...) of one with another velocity.
        """
        require_tensor(name, x)
        encoder = self.velocity
        if isinstance(encoder, MetaEncoder):
            require_shape(name, x, "B", encoder.channels, "H", "W")
            require_type_of(name, x, encoder.weight, promotes=not encoder.is_narrow)
        else:
            require_shape(name, x, "B", ...)

    def trajectory(self, x: Tensor, num_steps: int, velocity: Velocity | None = None) -> Trajectory:
        """Return the chain of ``num_steps`` steps from X_S = ``x`` (B, ...) with the estimate of X_T at each.

        Args:
            velocity: what takes the place of the flow's own; None: nothing does.

        Raises:
            ValueError: ``num_steps`` is less than 1, or ``x`` is none of ``require_source``.
        """
        self.require_source("x", x)
        predicted = velocity or self._velocity_of(positive("num_steps", num_steps))
        if self.predicts == "target":
            return self._trajectory_by_targets(x, num_steps, predicted)
        chain = euler(predicted, self.schedule.start(x), num_steps)
        estimates = [
            self.schedule.recover_target(state=state, velocity=v, source=x, time=time)
            for time, state, v in zip(step_times(num_steps), chain.states[:-1], chain.velocities, strict=True)
        ]
        return chain._replace(estimates=estimates)

    def _trajectory_by_targets(self, source: Tensor, num_steps: int, predicted: Velocity) -> Trajectory:
        """Return the chain whose estimates of X_T are what is ``predicted``."""
        estimates: list[Tensor] = []
        times = iter(step_times(num_steps))

        def velocity(*, x: Tensor, t: Tensor) -> Tensor:
            estimates.append(predicted(x=x, t=t))
            return self.schedule.velocity_toward(estimates[-1], source=source, time=next(times))

        return euler(velocity, self.schedule.start(source), num_steps)._replace(estimates=estimates)

    def field(self, source: Tensor) -> Callable[[Tensor, float], Tensor]:
        """Return the velocity of the continuous flow from X_S = ``source`` (B, ...), of states and any time in [0, 1].

        What ``flow_log_likelihood`` takes; a chain sees it at its own times alone.

        Raises:
            ValueError: ``source`` is none of ``require_source``; of the velocity: a state is not shaped like it.
        """
        self.require_source("source", source)

        def velocity(state: Tensor, time: float) -> Tensor:
            require_like("state", state, source, whose="the source's")
            predicted = self.velocity(x=state, t=state.new_full((len(state),), time, dtype=precise_dtype(state)))
            if self.predicts == "velocity":
                return predicted
            return self.schedule.velocity_toward(predicted, source=source, time=time)

        return velocity

    def final_state(self, x: Tensor, num_steps: int) -> Tensor:
        """Return the last state of the chain from ``x``, shaped like ``x`` (B, ...)."""
        return self.trajectory(x, num_steps).states[-1]

    def estimates(self, x: Tensor, num_steps: int) -> list[Tensor]:
        """Return the ``num_steps`` estimates of X_T, each shaped like ``x`` (B, ...), along the chain from ``x``."""
        return list(self.trajectory(x, num_steps).estimates)

    def step_outputs(self, x: Tensor, num_steps: int) -> Tensor:
        """Return T(X_T_hat_i) of each of ``num_steps`` steps, (num_steps, B, ...) in the teacher's space."""
        return at_each_step(self.transform, self.estimates(x, num_steps))

    def forward(self, x: Tensor, num_steps: int) -> Tensor:
        """Return mean_i T(X_T_hat_i), the implicit ensemble of the steps, in the teacher's space (B, ...)."""
        return self.step_outputs(x, num_steps).mean(dim=0)

    def _velocity_of(self, num_steps: int) -> Velocity:
        """Return the velocity of a chain of ``num_steps`` steps; a meta-encoder embeds their times at once."""
        if not isinstance(self.velocity, MetaEncoder):
            return self.velocity
        return self.velocity.along(self.velocity.condition_steps(num_steps))


class FixedFlow(nn.Module, ABC):
    """A flow whose number of steps is fixed: a form in which it deploys. What it is made from shares its weights."""

    @abstractmethod
    def final_state(self, x: Tensor) -> Tensor:
        """Return the last state of the chain from ``x``, shaped like ``x`` (B, ...)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return mean_i T(X_T_hat_i) in the teacher's space (B, ...)."""


def at_each_step(transform: nn.Module, steps: Sequence[Tensor]) -> Tensor:
    """Return ``transform`` of the maps (B, ...) of each of N steps, (N, B, ...), applied to all of them at once."""
    stacked = torch.stack(list(steps))  # (N, B, ...)
    outputs = call(transform, stacked.flatten(0, 1))  # (N * B, ...)
    return outputs.reshape(*stacked.shape[:2], *outputs.shape[1:])


def build_flow(
    *,
    channels: int,
    transform: nn.Module,
    schedule: str = "rectified",
    meta_encoder: str = "conv",
    time_scale: float = 1.0,
    width: int | None = None,
    predicts: Predicts = "velocity",
    initial_weights: InitialWeights = "pytorch",
) -> FlowTransfer:
    """Return a flow for features of ``channels`` channels, its meta-encoder with random weights.

    Args:
        channels: C of the features (B, C, H, W).
        schedule: the name of the path, one of ``SCHEDULES``.
        meta_encoder: the name of what predicts, one of ``META_ENCODERS``.
        time_scale: what times are multiplied by before their sinusoids; the authors use 1.
        transform: maps an estimate of X_T (B, C, H, W) to the teacher's space (B, ...).
        width: channels of the meta-encoder; None: those of the features.
        predicts: what the meta-encoder returns; see ``FlowTransfer``.
        initial_weights: see ``build_meta_encoder``.

    Raises:
        ValueError: a name is unknown, or a number out of range.
    """
    positive("channels", channels)
    path = get_schedule(schedule)
    encoder = build_meta_encoder(
        meta_encoder,
        channels,
        width=width,
        time_scale=time_scale,
        velocity_norm=path.velocity_norm if predicts == "velocity" else None,
        initial_weights=initial_weights,
    )
    return FlowTransfer(velocity=encoder, schedule=path, transform=transform, predicts=predicts)


def build_logit_flow(*, channels: int, num_classes: int, **flow: Any) -> FlowTransfer:
    """Return a flow from features of ``channels`` channels to ``num_classes`` logits; ``flow`` as for ``build_flow``.

    Raises:
        ValueError: as ``build_flow``; or ``num_classes`` is less than 1.
    """
    transform = LogitTransform(positive("channels", channels), positive("num_classes", num_classes))
    return build_flow(channels=channels, transform=transform, **flow)


def require_flow(flow: Any) -> None:
    """Raise ValueError where ``flow``, the argument of that name, is none."""
    if not isinstance(flow, FlowTransfer):
        raise ValueError(f"flow: got a {type(flow).__name__}; give a flow of build_flow, or a loss's: its .flow")  # noqa: TRY004


def start_at_rest(flow: FlowTransfer) -> None:
    """Set the last layer of the flow's meta-encoder to 0: at first its velocity is 0, and each step answers T(X_S).

    Raises:
        ValueError: it is no flow, or predicts no velocity; that is of no meta-encoder, or its last layer has no weight.
    """
    require_flow(flow)
    if flow.predicts != "velocity":
        raise ValueError(f"flow: got one that predicts its {flow.predicts}, which does not rest at 0")
    encoder = flow.velocity
    layer = encoder.last_layer if isinstance(encoder, MetaEncoder) else None
    parameters = [] if layer is None else list(layer.parameters())
    if not parameters:
        found = type(encoder if layer is None else layer).__name__
        raise ValueError(f"flow: got a velocity that ends in a {found}, which has no weight to set to 0")
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
