"""What an argument may be that is a tensor; what does not fit is a ValueError with its name, before PyTorch sees it.

Types, places and shapes are known without the numbers. Of labels alone numbers are read, and on the CPU alone: to read
those of a GPU a training step would wait for it.
"""

from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

MIXED = {torch.float16, torch.bfloat16}
"""What automatic mixed precision may give to weights of another type."""


def require_tensor(name: str, value: Any) -> None:
    """Raise ValueError where the argument called ``name`` is no tensor of floating-point numbers."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: got a {type(value).__name__}; give a tensor")  # noqa: TRY004  (one kind for all)
    if not value.is_floating_point():
        raise ValueError(f"{name}: got {value.dtype}; give floating-point numbers, such as {name}.float()")


def require_filled(name: str, value: Any) -> None:
    """Raise ValueError where the argument called ``name`` is none of ``require_tensor``, or an empty one."""
    require_tensor(name, value)
    if not value.numel():
        raise ValueError(f"{name}: got the shape {tuple(value.shape)}, which is empty; give an image at least")


def require_shape(name: str, value: Tensor, *sizes: int | str | EllipsisType, why: str = "") -> None:
    """Raise ValueError where the argument called ``name`` has another shape than ``sizes``.

    Args:
        sizes: a length that is known, a word for one that is not; ``...`` before or behind them for any further ones.
        why: what the message adds.
    """
    known = [size for size in sizes if size is not ...]
    further = value.dim() - len(known)
    found = value.shape[further:] if sizes[0] is ... else value.shape
    has_dims = further == 0 if len(known) == len(sizes) else further >= 0
    if not has_dims or any(isinstance(a, int) and a != b for a, b in zip(known, found, strict=False)):
        wanted = ", ".join("..." if size is ... else str(size) for size in sizes)
        raise ValueError(f"{name}: got the shape {tuple(value.shape)}; give ({wanted}){why and f', since {why}'}")


def require_like(name: str, value: Any, other: Tensor, *, whose: str = "the student's", came: str = "got") -> None:
    """Raise ValueError where the argument called ``name`` has another shape than ``other``, or lies elsewhere.

    Args:
        whose: what the message calls the shape and the place of ``other``.
        came: how ``value`` did.
    """
    require_tensor(name, value)
    if value.device != other.device:
        raise ValueError(f"{name}: {came} a tensor on {value.device}; {whose} is on {other.device}")
    if value.shape != other.shape:
        raise ValueError(f"{name}: {came} the shape {tuple(value.shape)}; {whose} is {tuple(other.shape)}")


def require_scalar(name: str, value: Any) -> Tensor:
    """Return ``value``, what the function called ``name`` returned; raises ValueError where it is no scalar tensor."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name}: returned a {type(value).__name__}; let it return a tensor, one number for the batch")  # noqa: TRY004
    if value.dim():
        raise ValueError(
            f"{name}: returned the shape {tuple(value.shape)}; let it return one number, such as by mean()"
        )
    return value


def require_type_of(name: str, value: Tensor, weight: Tensor, *, promotes: bool) -> None:
    """Raise ValueError where the ``weight`` of a flow cannot take the argument called ``name``, by type or place.

    Args:
        promotes: whether what comes is added to a number of the weight's type before a layer sees it.
    """
    fits = (
        value.dtype == weight.dtype
        or (promotes and value.dtype in MIXED)
        or (value.device.type != "meta" and torch.is_autocast_enabled(value.device.type))  # meta knows no autocast
    )
    if value.device != weight.device or not fits:
        raise ValueError(
            f"{name}: got {value.dtype} on {value.device}; the flow is {weight.dtype} on {weight.device}: move one of "
            "them by to()"
        )


def require_labels(name: str, labels: Any, logits: Tensor) -> None:
    """Raise ValueError where ``labels``, the argument ``name``, are not int64 (B,) for ``logits`` (..., B, C).

    Labels on the CPU must name one of the C classes. Elsewhere their numbers are not read, and neither are they where
    the code is being compiled: one out of range ends the program there by PyTorch's own assertion.
    """
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got = labels.dtype if isinstance(labels, Tensor) else f"a {type(labels).__name__}"
        raise ValueError(f"{name}: got {got}; give class numbers, a tensor of int64 such as {name}.long()")
    if labels.device != logits.device:
        raise ValueError(f"{name}: got a tensor on {labels.device}; the logits are on {logits.device}")
    if labels.shape != logits.shape[-2:-1]:
        raise ValueError(f"{name}: got the shape {tuple(labels.shape)}; give ({logits.shape[-2]},), one for each image")
    if labels.device.type != "cpu" or torch.compiler.is_compiling():
        return
    least, most = (int(bound) for bound in labels.aminmax())
    if least < 0 or most >= logits.shape[-1]:
        wrong, classes = least if least < 0 else most, logits.shape[-1]
        raise ValueError(f"{name}: got {wrong}, and there are logits of {classes} classes; give 0 to {classes - 1}")
