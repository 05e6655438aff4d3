"""How far two runtimes differ on the same images."""

from typing import NamedTuple

import numpy as np

from pipeline.errors import GateError
from pipeline.metrics import Logits


class Parity(NamedTuple):
    """The difference between logits and their reference."""

    max_abs: float
    """Largest absolute difference of a logit."""
    top1_agreement: float
    """Share of images with the same largest logit."""


def compare(logits: Logits, reference: Logits) -> Parity:
    """Return the parity of ``logits`` (N, C) with ``reference`` (N, C).

    Raises:
        GateError: the shapes differ, or a value is not finite.
    """
    if logits.shape != reference.shape:
        raise GateError(f"the logits have shape {logits.shape}, the reference has {reference.shape}")
    if not (np.isfinite(logits).all() and np.isfinite(reference).all()):
        raise GateError("the logits are not all finite, so they cannot be compared")
    difference = np.abs(logits.astype(np.float64) - reference)
    agreement = (logits.argmax(axis=1) == reference.argmax(axis=1)).mean()
    return Parity(float(difference.max()), float(agreement))


def require_parity(found: Parity, what: str, *, max_abs_diff: float, min_top1_agreement: float) -> None:
    """Raise GateError, naming ``what`` and the figures, where ``found`` is not good enough."""
    if found.max_abs > max_abs_diff:
        raise GateError(f"{what}: logits differ by {found.max_abs:.3g}, allowed are {max_abs_diff:.3g}")
    if found.top1_agreement < min_top1_agreement:
        raise GateError(
            f"{what}: {found.top1_agreement:.2%} of the images get the same label, required: {min_top1_agreement:.2%}"
        )
