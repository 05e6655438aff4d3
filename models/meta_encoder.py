"""The meta-encoder: a small network g(Z, t) that predicts the velocity of the flow."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .core.calling import call
from .core.tensors import require_shape, require_tensor
from .integrate import Velocity, step_times_like
from .layers.time_embedding import TimeEmbedding


class Conditioning(NamedTuple):
    """What a meta-encoder knows of the time, ready to be added to and multiplied with feature maps."""

    shift: Tensor
    """Time embedding (B or 1, R, 1, 1) of the R channels of the meta-encoder's body."""
    norm: Tensor | None
    """Magnitude of the velocity (B or 1, 1, 1, 1); None: 1."""


class MetaEncoder(nn.Module):
    """Velocity v = n(t) U body(D Z + e(t)), e broadcast over height and width.

    D and U are 1x1 convolutions from the C channels of the states to the fewer of the body and back. Without a width of
    its own the body has C channels and neither is there: the authors' form (arXiv 2402.02012, figure 4, where n = 1).

    Args:
        body: layers of ``width`` channels, or of ``channels`` where that is None.
        velocity_norm: n; see ``models.flow_paths.base.Schedule.velocity_norm``.
    """

    def __init__(
        self,
        channels: int,
        body: nn.Sequential,
        *,
        width: int | None = None,
        time_scale: float = 1.0,
        velocity_norm: Callable[[Tensor], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.width = channels, width or channels
        self.time_embedding = TimeEmbedding(self.width, scale=time_scale)
        self.project_in = projection(channels, width)
        self.body = body
        self.project_out = projection(width, channels)
        self.velocity_norm = velocity_norm

    @property
    def is_narrow(self) -> bool:
        """Whether the body has a width of its own."""
        return isinstance(self.project_in, nn.Conv2d)

    @property
    def weight(self) -> Tensor:
        """The first weight that every meta-encoder has: the others are of its type and in its place."""
        layer = next(iter(self.time_embedding.project))  # a few times as fast as by an index
        assert isinstance(layer, nn.Linear)
        return layer.weight

    @property
    def last_layer(self) -> nn.Module:
        """The layer that the velocity leaves."""
        return self.project_out if self.is_narrow else self.body[-1]

    def forward(self, *, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity (B, C, H, W) at states ``x`` (B, C, H, W) and times ``t`` (B,).

        Raises:
            ValueError: states or times have another shape.
        """
        require_tensor("x", x)
        require_shape("x", x, "B", self.channels, "H", "W")
        require_tensor("t", t)
        require_shape("t", t, x.shape[0])
        return self.velocity_at(x, self.condition(t))

    def condition(self, t: Tensor) -> Conditioning:
        """Return what ``velocity_at`` needs of times ``t`` (B,)."""
        norm = self.velocity_norm(t) if self.velocity_norm else None
        shift = self.time_embedding(t)[:, :, None, None]
        return Conditioning(shift, None if norm is None else norm.to(self.weight.dtype)[:, None, None, None])

    def condition_steps(self, num_steps: int) -> list[Conditioning]:
        """Return what ``velocity_at`` needs at each step of a chain of ``num_steps``, all computed at once."""
        shifts, norms = self.condition(step_times_like(self.weight, num_steps))
        rows = [None] * num_steps if norms is None else torch.split(norms, 1)
        return [Conditioning(*row) for row in zip(torch.split(shifts, 1), rows, strict=True)]

    def along(self, steps: Iterable[Conditioning]) -> Velocity:
        """Return the velocity of one trajectory, which is called once for each of ``steps`` in their order."""
        conditionings = iter(steps)

        def velocity(*, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001  (known from the order)
            return self.velocity_at(x, next(conditionings))

        return velocity

    def velocity_at(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity at states ``x`` (B, C, H, W) for what ``condition`` returned."""
        velocity = call(self.project_out, call(self.body, call(self.project_in, x) + conditioning.shift))
        return velocity if conditioning.norm is None else conditioning.norm * velocity


class LayerEncoder(nn.Module):
    """The body of a meta-encoder as an ordinary residual layer: the control "student + meta-encoder", without a flow.

    What one step of rectified flow computes, whose time embedding is a constant that is learned; so is ``b`` here.

    Args:
        body: as of ``MetaEncoder``.
        width: as of ``MetaEncoder``.
        bias: whether there is ``b``; it starts at 0.
    """

    def __init__(self, channels: int, body: nn.Sequential, *, width: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.project_in = projection(channels, width)
        self.bias = nn.Parameter(torch.zeros(width or channels, 1, 1)) if bias else None
        self.body = body
        self.project_out = projection(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x - U body(D x + b), shaped like ``x`` (B, C, H, W)."""
        inner = call(self.project_in, x)
        return x - call(self.project_out, call(self.body, inner if self.bias is None else inner + self.bias))


def projection(channels: int | None, out: int | None) -> nn.Module:
    """Return a 1x1 convolution from ``channels`` to ``out`` channels; where one is None, what changes nothing.

    It has no bias: on the way in the time embedding is one, and on the way out the body's last layer may have one.
    """
    if channels is None or out is None:
        return nn.Identity()
    return nn.Conv2d(channels, out, 1, bias=False)
