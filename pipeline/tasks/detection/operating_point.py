"""The score from which on detections are best taken for answers: that of the best F1."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class OperatingPoint(NamedTuple):
    """What holds of the detections from a score on, at an overlap of one half."""

    score: float
    """1 where nothing is right at any score."""
    detections: int
    precision: float | None
    """None: there is no detection."""
    recall: float | None
    """None: there is no object."""
    f1: float | None


def best_f1(scores: NDArray[np.float32], right: NDArray[np.bool_], wanted: int) -> OperatingPoint:
    """Return the point with the best F1 = 2 right / (detections + objects), the highest score of those that tie.

    Args:
        scores: (M,), of the detections that are not ignored.
        right: (M,), whether each is.
        wanted: the number of objects.
    """
    order = np.argsort(-scores, kind="stable")
    sorted_scores, found = scores[order], right[order].cumsum()
    ends = np.flatnonzero(np.append(np.diff(sorted_scores) != 0, True)[: len(scores)])  # equal scores go together
    if not right.any() or not wanted:
        return OperatingPoint(1.0, 0, None, 0.0 if wanted else None, 0.0 if wanted else None)
    f1 = 2 * found[ends] / (ends + 1 + wanted)
    end = ends[f1.argmax()]
    hits, listed = int(found[end]), int(end) + 1
    return OperatingPoint(float(sorted_scores[end]), listed, hits / listed, hits / wanted, float(f1.max()))
