"""In which number format things are computed: float32 at least, whatever automatic mixed precision gives."""

import torch
from torch import Tensor


def precise_dtype(x: Tensor) -> torch.dtype:
    """Return float64 for ``x`` of float64, and float32 for what is less precise."""
    return torch.promote_types(x.dtype, torch.float32)


def at_least_float32(x: Tensor) -> Tensor:
    """Return ``x`` in its ``precise_dtype``."""
    return x.to(precise_dtype(x))
