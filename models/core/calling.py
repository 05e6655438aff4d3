"""The one typed way to call a module: PyTorch declares that calls of modules return anything."""

from typing import Any

from torch import Tensor, nn


def call(module: nn.Module, x: Tensor, *args: Any) -> Tensor:
    """Return ``module(x, *args)``, which is a tensor."""
    output: Tensor = module(x, *args)
    return output
