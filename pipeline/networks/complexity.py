"""The arithmetic of a network."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(network: nn.Module, image_size: Sequence[int], device: torch.device) -> int:
    """Return the multiply-adds of one image (1, 3, H, W), counted by PyTorch (half its floating-point operations)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, *image_size, device=device))
    return int(counter.get_total_flops()) // 2
