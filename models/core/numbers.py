"""What an argument may be that counts something."""

import math
from collections.abc import Sequence
from typing import Any


def is_count(number: Any) -> bool:
    """Return whether ``number`` is a whole number of at least 1."""
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def positive(name: str, number: int | None) -> int:
    """Return ``number``, the argument called ``name``; raises ValueError where it is none of at least 1."""
    if not is_count(number):
        raise ValueError(f"{name}: got {number!r}; give an int of at least 1")
    assert number is not None
    return number


def epoch_of(epoch: int) -> int:
    """Return ``epoch``; raises ValueError where it is none that counts from 0."""
    if epoch != 0 and not is_count(epoch):
        raise ValueError(f"epoch: got {epoch!r}; give an int of at least 0")
    return epoch


def size_of(name: str, size: Sequence[int]) -> tuple[int, int]:
    """Return ``size``, the argument called ``name``, as (H, W); raises ValueError where it is no such pair."""
    if not isinstance(size, Sequence):
        raise ValueError(f"{name}: got {size!r}; give height and width, ints of at least 1, such as (7, 7)")  # noqa: TRY004
    if len(size) != 2 or not all(is_count(length) for length in size):
        raise ValueError(f"{name}: got {tuple(size)}; give height and width, ints of at least 1, such as (7, 7)")
    return size[0], size[1]


def amount(name: str, number: Any) -> float:
    """Return ``number``, the argument called ``name``; raises ValueError where it is none of at least 0."""
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if not is_number or not math.isfinite(number) or number < 0:
        raise ValueError(f"{name}: got {number!r}; give a finite number of at least 0")
    return float(number)


def share(name: str, number: Any) -> float:
    """Return ``number``, the argument called ``name``; raises ValueError where it is no share from 0 to 1."""
    if not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ValueError(f"{name}: got {number!r}; give a share from 0 to 1")
    return float(number)
