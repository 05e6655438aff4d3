"""Meta-encoders: small networks g(Z, t) that predict the velocity of the flow."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.choice import choose
from models.integrate import Velocity, step_times_like
from models.time_embedding import TimeEmbedding


class Conditioning(NamedTuple):
    """What a meta-encoder knows of the time, ready to be added to and multiplied with feature maps."""

    shift: Tensor
    """Time embedding (B or 1, C, 1, 1)."""
    norm: Tensor | None
    """Magnitude of the velocity (B or 1, 1, 1, 1); None: 1."""


class MetaEncoder(nn.Module):
    """Velocity v = n(t) body(Z + e(t)), e broadcast over height and width (arXiv 2402.02012, figure 4, where n = 1).

    Args:
        velocity_norm: n; see ``models.schedules.Schedule.velocity_norm``.
    """

    def __init__(
        self,
        channels: int,
        body: nn.Sequential,
        *,
        time_scale: float = 1.0,
        velocity_norm: Callable[[Tensor], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(channels, scale=time_scale)
        self.body = body
        self.velocity_norm = velocity_norm

    def forward(self, *, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity (B, C, H, W) at states ``x`` (B, C, H, W) and times ``t`` (B,)."""
        return self.velocity_at(x, self.condition(t))

    def condition(self, t: Tensor) -> Conditioning:
        """Return what ``velocity_at`` needs of times ``t`` (B,)."""
        norm = self.velocity_norm(t) if self.velocity_norm else None
        return Conditioning(
            self.time_embedding(t)[:, :, None, None], None if norm is None else norm[:, None, None, None]
        )

    def condition_steps(self, num_steps: int) -> list[Conditioning]:
        """Return what ``velocity_at`` needs at each step of a chain of ``num_steps``, all computed at once."""
        shifts, norms = self.condition(step_times_like(next(self.parameters()), num_steps))
        rows = [None] * num_steps if norms is None else torch.split(norms, 1)
        return [Conditioning(*row) for row in zip(torch.split(shifts, 1), rows, strict=True)]

    def along(self, steps: Iterable[Conditioning]) -> Velocity:
        """Return the velocity of one walk, which is called once for each of ``steps`` in their order."""
        conditionings = iter(steps)

        def velocity(*, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG001  (known from the order)
            return self.velocity_at(x, next(conditionings))

        return velocity

    def velocity_at(self, x: Tensor, conditioning: Conditioning) -> Tensor:
        """Return the velocity at states ``x`` (B, C, H, W) for what ``condition`` returned."""
        velocity: Tensor = self.body(x + conditioning.shift)
        return velocity if conditioning.norm is None else conditioning.norm * velocity


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), each position on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class Residual(nn.Module):
    """1x1 convolution, ReLU, 1x1 convolution, and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return x + self.layers(x)  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Self-attention within square windows, with a skip connection (Liu et al. 2021, without shifts).

    The window is 7 where that divides height and width, else 2; a map that neither divides is one window.
    """

    def __init__(self, channels: int, *, heads: int = 4, head_width: int = 64) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = head_width
        self.project_in = nn.Conv2d(channels, 3 * heads * head_width, 1, bias=False)
        self.project_out = nn.Conv2d(heads * head_width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        window = next((size for size in (7, 2) if height % size == width % size == 0), None)
        rows, columns = (window, window) if window else (height, width)
        tiles = (-1, 3, self.heads, self.head_width, height // rows, rows, width // columns, columns)
        tiled = self.project_in(x).reshape(tiles).permute(1, 0, 4, 6, 2, 5, 7, 3)  # (3, B, nH, nW, heads, r, c, D)
        query, key, value = tiled.flatten(5, 6)  # (B, nH, nW, heads, tokens, D)
        weights = (query @ key.transpose(-1, -2) * self.head_width**-0.5).softmax(dim=-1)
        attended = (weights @ value).unflatten(4, (rows, columns))  # (B, nH, nW, heads, r, c, D)
        joined = attended.permute(0, 3, 6, 1, 4, 2, 5).reshape(-1, self.heads * self.head_width, height, width)
        return x + self.project_out(joined)  # type: ignore[no-any-return]


def conv_body(channels: int) -> nn.Sequential:
    """Return SiLU, 3x3 convolution, GroupNorm(1), SiLU, 3x3 convolution, without biases."""
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.GroupNorm(1, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    )


def conv_mobile_body(channels: int) -> nn.Sequential:
    """Return ReLU, 1x1 convolution, GroupNorm(1), ReLU, depthwise 3x3 convolution, without biases."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.GroupNorm(1, channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
    )


def mlp_body(channels: int) -> nn.Sequential:
    """Return two residual 1x1-convolution blocks, each with channel layer normalisation."""
    return nn.Sequential(Residual(channels), ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels))


def transformer_body(channels: int) -> nn.Sequential:
    """Return window attention and a residual 1x1-convolution block, each with channel layer normalisation."""
    return nn.Sequential(
        WindowAttention(channels), ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels)
    )


META_ENCODERS: dict[str, Callable[[int], nn.Sequential]] = {
    "conv": conv_body,
    "conv_mobile": conv_mobile_body,
    "mlp": mlp_body,
    "transformer": transformer_body,
}
"""Each ends with a layer that is affine in what it is given: a convolution, or a normalisation's scale and shift."""


def build_meta_encoder(
    name: str,
    channels: int,
    *,
    time_scale: float = 1.0,
    velocity_norm: Callable[[Tensor], Tensor | None] | None = None,
) -> MetaEncoder:
    """Return the meta-encoder called ``name`` for states of ``channels`` channels; see ``MetaEncoder``.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return MetaEncoder(channels, _body(name, channels), time_scale=time_scale, velocity_norm=velocity_norm)


class LayerEncoder(nn.Module):
    """The body of a meta-encoder as an ordinary residual layer: the control "student + meta-encoder", without a flow.

    What one step of rectified flow computes, but for the time embedding.
    """

    def __init__(self, name: str, channels: int) -> None:
        super().__init__()
        self.body = _body(name, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x - body(x), shaped like ``x`` (B, C, H, W)."""
        return x - self.body(x)  # type: ignore[no-any-return]


def _body(name: str, channels: int) -> nn.Sequential:
    return choose(META_ENCODERS, name, kind="meta-encoder")(channels)
