"""The arrays that rooms hand to each other."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""RGB images (N, 3, H, W)."""
Outputs = Mapping[str, NDArray[Any]]
"""What a network returns, by the names of its signature; the first axis is the batch."""
Truth = Mapping[str, NDArray[Any]]
"""What is right about some images, by the names of their task."""


def concatenate(parts: Sequence[Outputs]) -> Outputs:
    """Return the outputs of batches, joined along the batch."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def first_rows(outputs: Outputs, count: int) -> Outputs:
    """Return the outputs of the first ``count`` images."""
    return {name: array[:count] for name, array in outputs.items()}


def is_finite(array: NDArray[Any]) -> bool:
    """Return whether ``array`` holds neither NaN nor infinity; a minimum and a maximum carry both on."""
    if array.dtype.kind != "f":
        return True
    return math.isfinite(array.min()) and math.isfinite(array.max())
