"""Meta-encoders: small networks g(Z, t) that predict the velocity of the flow."""

from collections.abc import Callable

from torch import Tensor, nn

from models.choice import choose
from models.time_embedding import TimeEmbedding


class MetaEncoder(nn.Module):
    """Velocity v = body(Z + e(t)), e broadcast over height and width (arXiv 2402.02012, figure 4)."""

    def __init__(self, channels: int, body: nn.Module, *, time_scale: float = 1.0) -> None:
        super().__init__()
        self.time_embedding = TimeEmbedding(channels, scale=time_scale)
        self.body = body

    def forward(self, *, x: Tensor, t: Tensor) -> Tensor:
        """Return the velocity (B, C, H, W) at states ``x`` (B, C, H, W) and times ``t`` (B,)."""
        return self.velocity_at(x, self.embed(t))

    def embed(self, t: Tensor) -> Tensor:
        """Return the time embedding (B, C, 1, 1) of times ``t`` (B,), ready to be added to states."""
        return self.time_embedding(t)[:, :, None, None]  # type: ignore[no-any-return]

    def velocity_at(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Return the velocity at states ``x`` (B, C, H, W) for an ``embedding`` (B or 1, C, 1, 1) from ``embed``."""
        return self.body(x + embedding)  # type: ignore[no-any-return]


class ChannelLayerNorm(nn.Module):
    """Layer normalisation over the channels of (B, C, H, W), each position on its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (B, C, H, W) normalised over C."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


class MlpBlock(nn.Module):
    """1x1 convolution, ReLU, 1x1 convolution, skip connection, channel layer normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1))
        self.norm = ChannelLayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        return self.norm(x + self.layers(x))  # type: ignore[no-any-return]


def conv_body(channels: int) -> nn.Module:
    """Return SiLU, 3x3 convolution, GroupNorm(1), SiLU, 3x3 convolution, without biases."""
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        nn.GroupNorm(1, channels),
        nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1, bias=False),
    )


def mlp_body(channels: int) -> nn.Module:
    """Return two residual 1x1-convolution blocks."""
    return nn.Sequential(MlpBlock(channels), MlpBlock(channels))


META_ENCODERS: dict[str, Callable[[int], nn.Module]] = {"conv": conv_body, "mlp": mlp_body}


def build_meta_encoder(name: str, channels: int, *, time_scale: float = 1.0) -> MetaEncoder:
    """Return the meta-encoder called ``name`` for states of ``channels`` channels.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    return MetaEncoder(channels, choose(META_ENCODERS, name, kind="meta-encoder")(channels), time_scale=time_scale)
