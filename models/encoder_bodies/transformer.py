"""``transformer`` and ``transformer_shifted``: attention within windows."""

import torch
from torch import Tensor, nn

from ..core.calling import call
from .mlp import ChannelLayerNorm, Residual

WINDOWS = (7, 2)
"""Sizes of windows: the first that divides height and width; a map that neither divides is one window."""


class WindowAttention(nn.Module):
    """Self-attention within square windows, with a skip connection (Liu et al. 2021).

    Args:
        relative: whether each head adds a learned bias for each relative position of two pixels. A map that is one
            window has none where it is larger than the largest window.
        shifted: whether the windows lie half a window further down and to the right, so that what two windows hold
            meets in one; pixels that are no neighbours do not attend to each other.
    """

    def __init__(
        self, channels: int, *, heads: int = 4, head_width: int = 64, relative: bool = False, shifted: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = head_width
        self.shifted = shifted
        self.project_in = nn.Conv2d(channels, 3 * heads * head_width, 1, bias=False)
        self.project_out = nn.Conv2d(heads * head_width, channels, 1)
        reach = 2 * max(WINDOWS) - 1
        self.relative = nn.Parameter(torch.zeros(heads, reach, reach)) if relative else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        height, width = x.shape[2:]
        window = next((size for size in WINDOWS if height % size == width % size == 0), None)
        rows, columns = (window, window) if window else (height, width)
        shift = window // 2 if self.shifted and window and (height, width) != (window, window) else 0
        projected = self.project_in(x)
        if shift:
            projected = projected.roll((-shift, -shift), dims=(2, 3))
        tiles = (-1, 3, self.heads, self.head_width, height // rows, rows, width // columns, columns)
        tiled = projected.reshape(tiles).permute(1, 0, 4, 6, 2, 5, 7, 3)  # (3, B, nH, nW, heads, r, c, D)
        query, key, value = tiled.flatten(5, 6)  # (B, nH, nW, heads, tokens, D)
        scores = (query @ key.transpose(-1, -2)) * self.head_width**-0.5
        if self.relative is not None and max(rows, columns) <= max(WINDOWS):
            scores = scores + _at_positions(self.relative, rows, columns)  # (heads, tokens, tokens)
        if shift:
            assert window is not None
            apart = _apart((height, width), window, shift).to(x.device)  # (nH, nW, tokens, tokens)
            scores = scores.masked_fill(apart[:, :, None], float("-inf"))
        attended = (scores.softmax(dim=-1) @ value).unflatten(4, (rows, columns))  # (B, nH, nW, heads, r, c, D)
        joined = attended.permute(0, 3, 6, 1, 4, 2, 5).reshape(-1, self.heads * self.head_width, height, width)
        if shift:
            joined = joined.roll((shift, shift), dims=(2, 3))
        return x + call(self.project_out, joined)


def _at_positions(relative: Tensor, rows: int, columns: int) -> Tensor:
    """Return the biases (heads, tokens, tokens) of a window of ``rows`` x ``columns`` pixels, read row by row."""
    centre = relative.shape[1] // 2
    down = torch.arange(rows)[:, None] - torch.arange(rows) + centre  # (r, r)
    right = torch.arange(columns)[:, None] - torch.arange(columns) + centre  # (c, c)
    found = relative[:, down[:, None, :, None], right[None, :, None, :]]  # (heads, r, c, r, c)
    return found.reshape(len(relative), rows * columns, rows * columns)


def _apart(size: tuple[int, int], window: int, shift: int) -> Tensor:
    """Return which pixels of a shifted window were no neighbours before, (nH, nW, tokens, tokens)."""
    regions = []
    for length in size:  # what the roll has brought to the end is another region than what was there
        places = torch.arange(length)
        regions.append((places >= length - window).long() + (places >= length - shift).long())
    region = regions[0][:, None] * 3 + regions[1]  # (H, W)
    height, width = size
    tiles = region.reshape(height // window, window, width // window, window).permute(0, 2, 1, 3).flatten(2)
    apart: Tensor = tiles[..., :, None] != tiles[..., None, :]
    return apart


def transformer_body(channels: int) -> nn.Sequential:
    """Return window attention and a residual 1x1-convolution block, each with channel layer normalisation."""
    return nn.Sequential(
        WindowAttention(channels), ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels)
    )


def transformer_shifted_body(channels: int) -> nn.Sequential:
    """Return two such blocks with relative positions, the windows of the second shifted (Liu et al. 2021)."""
    blocks = []
    for shifted in (False, True):
        attention = WindowAttention(channels, relative=True, shifted=shifted)
        blocks += [attention, ChannelLayerNorm(channels), Residual(channels), ChannelLayerNorm(channels)]
    return nn.Sequential(*blocks)
