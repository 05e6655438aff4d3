"""How far a network's outputs are from their reference, measured by how far the reference's own lie apart.

A difference means nothing by itself: of logits that lie 30 apart, 0.1 moves no label; of logits that lie 0.3 apart, it
moves many. What is added to all outputs of an image moves none. So the scale is, for each image, the standard deviation
of its outputs around their mean. Where outputs differ by a share r of it, the answers that can change are those whose
two best outputs lie within 2 r standard deviations of each other.

Two bounds keep that scale honest. An image whose outputs happen to lie close together is measured by the median of
all images, since what rounds in the network before them is of the usual size. And float32 itself is no finer than 2^-24
of a value: outputs that lie far from zero and close together are measured by a hundredth of their largest value, so
that a bound of 1e-4 is never narrower than 16 such roundings.

Where a tail makes the outputs, what it makes of two nearly equal tensors need not be nearly equal: a detection is
there, or it is not. Then it is the tensors before the tail, each by itself, that are compared value by value, and of
the outputs those are counted that are the same.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import GateError

Scale = NDArray[np.float64]
"""By what the difference of each image's outputs is measured, (N,)."""
SHARE_OF_LARGEST = 0.01


class ValueParity(NamedTuple):
    """The difference between values and their reference."""

    max_abs: float
    """Largest absolute difference."""
    spread: float
    """Median of the scale by which differences are measured."""
    difference: float
    """Largest difference as a share of its own image's scale."""


class Parity(NamedTuple):
    """The difference between a network's outputs and their reference."""

    max_abs: float
    """Largest absolute difference of a value, as far as values are compared; else of those of two that are the same."""
    spread: float | None
    """Median of the scale by which differences are measured; None: outputs are not compared value by value."""
    difference: float | None
    """Largest difference as a share of its own image's scale; None as before."""
    agreement: float
    """Share of what is counted that is the reference's; 1 where there is nothing to count."""
    total: int
    """How many are counted."""
    counted: str = "images"
    """What is counted."""

    def in_words(self) -> str:
        """Return what was compared, and what was found."""
        if not self.total:
            return f"there were no {self.counted} to count"
        same = f"{self.agreement:.2%} of {self.total:,} {self.counted} get the trained network's answer"
        if self.difference is None:
            return same
        return f"outputs differ by at most {self.difference:.2g} of their spread, {same}"


class Measures(NamedTuple):
    """What is known of each image's values in a tensor and in its reference, (N,) each."""

    apart: NDArray[np.float64]
    """Largest absolute difference."""
    spread: NDArray[np.float64]
    """Standard deviation of the reference around its mean."""
    largest: NDArray[np.float64]
    """Largest absolute value of the reference."""

    @property
    def scale(self) -> Scale:
        """By what differences are measured; see above."""
        scale: Scale = np.maximum(np.maximum(self.spread, np.median(self.spread)), SHARE_OF_LARGEST * self.largest)
        return scale

    def parity(self, scale: Scale) -> ValueParity:
        """Return how far the values are from their reference, measured by ``scale`` (N,)."""
        least = np.finfo(np.float32).tiny  # all values are 0: whatever differs is out of any bound
        shares = self.apart / np.maximum(scale, least)
        return ValueParity(float(self.apart.max()), float(np.median(scale)), float(shares.max()))


def measure(found: NDArray[Any], reference: NDArray[Any]) -> Measures:
    """Return what is known of the values ``found`` (N, ...) beside their ``reference``."""
    values = reference.reshape(len(reference), -1).astype(np.float64)
    apart = np.abs(found.reshape(values.shape) - values).max(axis=1)
    return Measures(apart, values.std(axis=1), np.abs(values).max(axis=1))


def output_scale(reference: NDArray[Any]) -> Scale:
    """Return by what differences from the outputs ``reference`` (N, ...) are measured, (N,); see above."""
    return measure(reference, reference).scale


def compare_values(found: NDArray[Any], reference: NDArray[Any], scale: Scale, *, same: NDArray[np.bool_]) -> Parity:
    """Return how far the outputs ``found`` (N, ...) are from ``reference``.

    Args:
        same: (N,), whether an image has the reference's answer.
    """
    values = measure(found, reference).parity(scale)
    return Parity(*values, agreement=float(same.mean()), total=len(same))


def require_comparable(found: NDArray[Any], reference: NDArray[Any], name: str) -> None:
    """Raise GateError, naming the output ``name``, where shapes differ or a value is not finite."""
    if found.shape != reference.shape:
        raise GateError(f"the {name} have shape {found.shape}, the reference has {reference.shape}")
    if not np.isfinite(reference).all():
        raise GateError(f"the trained network's {name} are not all finite: training diverged; train it again")
    if not np.isfinite(found).all():
        raise GateError(f"the {name} are not all finite, so they cannot be compared")
