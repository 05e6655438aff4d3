"""The one typed way to call a module: PyTorch declares that calls of modules return anything."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def call(module: nn.Module, x: Tensor, *args: Any) -> Tensor:
    """Return ``module(x, *args)``, which is a tensor."""
    output: Tensor = module(x, *args)
    return output


def as_tuple(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return what a network returned, one output or several, as a tuple."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
