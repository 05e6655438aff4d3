"""Several heads on one backbone: the control for what an ensemble of steps brings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.calling import call


class AveragedHeads(nn.Module):
    """The mean of the logits of several heads, each of which learns by itself."""

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def each(self, features: Tensor) -> Tensor:
        """Return the logits (H, B, num_classes) of each of the H heads on ``features`` (B, C, H', W')."""
        return torch.stack([call(head, features) for head in self.heads])

    def forward(self, features: Tensor) -> Tensor:
        """Return their mean, (B, num_classes)."""
        return self.each(features).mean(dim=0)
