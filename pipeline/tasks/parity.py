"""How far a network's outputs are from their reference, measured by how far the reference's own lie apart.

A difference means nothing by itself: of logits that lie 30 apart, 0.1 moves no label; of logits that lie 0.3 apart, it
moves many. What is added to all outputs of an image moves none. So the scale is, for each image, the standard deviation
of its outputs around their mean. Where outputs differ by a share r of it, the answers that can change are those whose
two best outputs lie within 2 r standard deviations of each other.

Two bounds keep that scale honest. An image whose outputs happen to lie close together is measured by the median of
all images, since what rounds in the network before them is of the usual size. And float32 itself is no finer than 2^-24
of a value: outputs that lie far from zero and close together are measured by a hundredth of their largest value, so
that a bound of 1e-4 is never narrower than 16 such roundings.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import GateError

Scale = NDArray[np.float64]
"""By what the difference of each image's outputs is measured, (N,)."""
SHARE_OF_LARGEST = 0.01


class Parity(NamedTuple):
    """The difference between a network's outputs and their reference."""

    max_abs: float
    """Largest absolute difference of an output that is compared value by value."""
    spread: float
    """Median of the scale by which differences are measured."""
    difference: float
    """Largest difference as a share of its own image's scale."""
    agreement: float
    """Share of images with the reference's answer."""


def output_scale(reference: NDArray[Any]) -> Scale:
    """Return by what differences from the outputs ``reference`` (N, ...) are measured, (N,); see above."""
    values = reference.reshape(len(reference), -1).astype(np.float64)
    spread = values.std(axis=1)
    largest = np.abs(values).max(axis=1)
    scale: Scale = np.maximum(np.maximum(spread, np.median(spread)), SHARE_OF_LARGEST * largest)
    return scale


def compare_values(found: NDArray[Any], reference: NDArray[Any], scale: Scale, *, same: NDArray[np.bool_]) -> Parity:
    """Return how far the outputs ``found`` (N, ...) are from ``reference``.

    Args:
        same: (N,), whether an image has the reference's answer.
    """
    apart = np.abs(found.astype(np.float64) - reference).reshape(len(found), -1).max(axis=1)
    least = np.finfo(np.float32).tiny  # all outputs are 0: whatever differs is out of any bound
    return Parity(
        max_abs=float(apart.max()),
        spread=float(np.median(scale)),
        difference=float((apart / np.maximum(scale, least)).max()),
        agreement=float(same.mean()),
    )


def require_comparable(found: NDArray[Any], reference: NDArray[Any], name: str) -> None:
    """Raise GateError, naming the output ``name``, where shapes differ or a value is not finite."""
    if found.shape != reference.shape:
        raise GateError(f"the {name} have shape {found.shape}, the reference has {reference.shape}")
    if not np.isfinite(reference).all():
        raise GateError(f"the trained network's {name} are not all finite: training diverged; train it again")
    if not np.isfinite(found).all():
        raise GateError(f"the {name} are not all finite, so they cannot be compared")
