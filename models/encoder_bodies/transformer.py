"""``transformer``: attention within windows."""

from torch import Tensor, nn

from ..core.calling import call
from .mlp import ChannelLayerNorm, Residual


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
        return x + call(self.project_out, joined)


def transformer_body(channels: int) -> nn.Sequential:
    """Return window attention and a residual 1x1-convolution block, each with channel layer normalisation."""
    return nn.Sequential(
        WindowAttention(channels), ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels)
    )
