"""How far two runtimes differ on the same images, and how far they may."""

from typing import NamedTuple

import numpy as np

from pipeline.core.errors import GateError
from pipeline.tasks.classification.metrics import ROUNDING, Labels, Logits

BATCH_TOLERANCE = 0.05


class Parity(NamedTuple):
    """The difference between logits and their reference."""

    max_abs: float
    """Largest absolute difference of a logit."""
    max_relative: float
    """The same as a share of ``largest_logit``."""
    largest_logit: float
    """Largest absolute logit of the reference."""
    top1_agreement: float
    """Share of images with the same largest logit."""


class Gate(NamedTuple):
    """How far what deploys may be from the trained network."""

    max_abs_diff: float | None
    """Largest difference of a logit; None: any."""
    max_relative_diff: float
    """Further difference that is allowed, as a share of the largest absolute reference logit."""
    min_top1_agreement: float
    """Share of images with the same label."""
    max_drop: float
    """Accuracy that may be lost, as a fraction."""

    def for_gpu_kernels(self) -> "Gate":
        """Return the gate for float32 on a GPU, whose kernels sum in other orders than a CPU's: ten times as wide."""
        return self if self.max_abs_diff is None else self._replace(max_abs_diff=10 * self.max_abs_diff)

    def for_sample_size(self, count: int) -> "Gate":
        """Return the gate for no more than ``count`` images: where some may get another label, one may."""
        return self._replace(
            min_top1_agreement=min(self.min_top1_agreement, 1 - 1 / count) if self.min_top1_agreement < 1 else 1.0,
            max_drop=max(self.max_drop, 1 / count) if self.max_drop > 0 else 0.0,
        )


def compare(logits: Logits, reference: Logits) -> Parity:
    """Return the parity of ``logits`` (N, C) with ``reference`` (N, C).

    Raises:
        GateError: the shapes differ, or a value is not finite.
    """
    if logits.shape != reference.shape:
        raise GateError(f"the logits have shape {logits.shape}, the reference has {reference.shape}")
    if not (np.isfinite(logits).all() and np.isfinite(reference).all()):
        raise GateError("the logits are not all finite, so they cannot be compared")
    difference = float(np.abs(logits.astype(np.float64) - reference).max())
    largest = float(np.abs(reference).max())
    agreement = (logits.argmax(axis=1) == reference.argmax(axis=1)).mean()
    return Parity(difference, difference / largest if largest else 0.0, largest, float(agreement))


def require_difference(found: Parity, what: str, gate: Gate) -> None:
    """Raise GateError, naming ``what`` and the figures, where logits differ by more than ``gate`` allows."""
    if gate.max_abs_diff is None:
        return
    allowed = gate.max_abs_diff + gate.max_relative_diff * found.largest_logit
    if found.max_abs > allowed:
        raise GateError(
            f"{what}: logits differ by {found.max_abs:.3g}, allowed are {allowed:.3g} "
            f"(max_abs_diff + max_relative_diff x {found.largest_logit:.3g}, the largest logit)"
        )


def require_same_in_batches(some: Logits, whole: Logits, what: str) -> None:
    """Raise GateError where ``some``, of the first images alone, are not those images' rows of ``whole``.

    A share of ``BATCH_TOLERANCE`` of the largest logit may differ: kernels round otherwise for other batch sizes.
    """
    found = compare(some, whole[: len(some)])
    if found.max_relative > BATCH_TOLERANCE:
        raise GateError(f"{what}: logits differ by {found.max_abs:.3g} from those in another batch size")


def require_parity(found: Parity, what: str, gate: Gate) -> None:
    """Raise GateError, naming ``what`` and the figures, where ``found`` is not as good as ``gate`` demands."""
    require_difference(found, what, gate)
    if found.top1_agreement < gate.min_top1_agreement:
        raise GateError(
            f"{what}: {found.top1_agreement:.2%} of the images get the same label, "
            f"required: {gate.min_top1_agreement:.2%}"
        )


def require_accuracy(logits: Logits, reference: Logits, labels: Labels, what: str, gate: Gate) -> float:
    """Return how much less accurate ``logits`` (N, C) are than ``reference`` against ``labels`` (N,), as a fraction.

    Raises:
        GateError: it is more than ``gate`` allows; names ``what`` and the figures.
    """
    accuracy, trained = (float((x.argmax(axis=1) == labels).mean()) for x in (logits, reference))
    drop = trained - accuracy
    if drop > gate.max_drop + ROUNDING:
        raise GateError(
            f"{what}: accuracy {accuracy:.2%} lies {drop:.2%} below the trained network's {trained:.2%}; "
            f"allowed is {gate.max_drop:.2%} (max_drop)"
        )
    return drop
