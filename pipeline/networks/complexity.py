"""The arithmetic of a network."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from models.factory import count_parameters
from pipeline.networks.program import Program


def num_parameters(network: nn.Module) -> int:
    """Return the number of values that ``network`` has learned; those of a program are within its file."""
    return network.num_parameters if isinstance(network, Program) else count_parameters(network)


def count_macs(network: nn.Module, image_size: Sequence[int], device: torch.device) -> int:
    """Return the multiply-adds of one image (1, 3, H, W), counted by PyTorch (half its floating-point operations)."""
    return macs_of(network, torch.zeros(1, 3, *image_size, device=device))


def macs_of(network: nn.Module, x: Tensor) -> int:
    """Return the multiply-adds of ``network`` on ``x``, which may be on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return int(counter.get_total_flops()) // 2
