"""Which detections of two lists are the same.

Two detections are the same where they have one class, overlap by an intersection over union of at least ``SAME_IOU``
and their scores differ by at most ``SAME_SCORE``. 1 - IoU is a metric, so that two boxes that both overlap a third by
0.8 overlap each other by at least 1 - 2 (1 - 0.8) = 0.6: of boxes that suppression at 0.6 or less has left, one at most
is the same as a given one, and there is nothing to choose.

A list ends somewhere: at the least score, or where it is full. What lies close to its end may be there or not without
any meaning. Counted are therefore the detections whose counterpart must be in the other list: those whose score is
above that list's end by ``SAME_SCORE``.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs
from pipeline.tasks.detection.instances import BOXES, CLASSES, COUNT, SCORES
from pipeline.tasks.parity import Parity, require_comparable

SAME_IOU = 0.8
SAME_SCORE = 0.1


class Found(NamedTuple):
    """The detections on an image, n of them."""

    boxes: NDArray[np.float64]
    """(n, 4)."""
    scores: NDArray[np.float64]
    """(n,), the highest first."""
    classes: NDArray[np.int64]
    """(n,)."""
    end: float
    """The score below which none is listed."""


class Compared(NamedTuple):
    """What the lists of one image have in common."""

    same: int
    others: int
    """Those that only one list has; one in each count once, as one answer in the place of another."""
    apart: float
    """Largest difference of a coordinate of two that are the same, pixels of the input."""


def compare_detections(found: Outputs, reference: Outputs, *, least_score: float) -> Parity:
    """Return how many detections of ``found`` and ``reference``, of the same images, are the same.

    Args:
        least_score: what the network lists has at least this score.

    Raises:
        GateError: the shapes differ, or a value is not finite.
    """
    for name in (COUNT, BOXES, SCORES, CLASSES):
        require_comparable(found[name], reference[name], name)
    compared = [
        _compare(_detections(found, i, least_score), _detections(reference, i, least_score))
        for i in range(len(reference[COUNT]))
    ]
    same, others = (sum(one[i] for one in compared) for i in (0, 1))
    total = int(same + others)
    return Parity(
        max_abs=max(one.apart for one in compared),
        spread=None,
        difference=None,
        agreement=same / total if total else 1.0,
        total=total,
        counted="detections",
    )


def _detections(outputs: Outputs, image: int, least_score: float) -> Found:
    count = int(outputs[COUNT][image, 0])
    scores = outputs[SCORES][image, :count].astype(np.float64)
    is_full = count == outputs[SCORES].shape[1]
    return Found(
        outputs[BOXES][image, :count].astype(np.float64),
        scores,
        outputs[CLASSES][image, :count].astype(np.int64),
        max(least_score, float(scores.min())) if is_full else least_score,
    )


def _compare(found: Found, reference: Found) -> Compared:
    pairs = _pairs(found, reference)
    sure = found.scores >= reference.end + SAME_SCORE, reference.scores >= found.end + SAME_SCORE
    apart = np.abs(found.boxes[pairs[:, 0]] - reference.boxes[pairs[:, 1]]).max(initial=0.0)
    same = (sure[0][pairs[:, 0]] | sure[1][pairs[:, 1]]).sum()
    alone = [np.delete(one, pairs[:, side]).sum() for side, one in enumerate(sure)]
    return Compared(int(same), int(max(alone)), float(apart))


def _pairs(found: Found, reference: Found) -> NDArray[np.int64]:
    """Return the positions (P, 2) in both lists of what is the same, each at most once, the closest boxes first."""
    overlap = _overlaps(found.boxes, reference.boxes)
    close = np.abs(found.scores[:, None] - reference.scores) <= SAME_SCORE
    same = (overlap >= SAME_IOU) & close & (found.classes[:, None] == reference.classes)
    candidates = np.argwhere(same)
    pairs: list[tuple[int, int]] = []
    taken: tuple[set[int], set[int]] = (set(), set())
    for i, j in candidates[np.argsort(-overlap[same], kind="stable")].tolist():
        if i not in taken[0] and j not in taken[1]:
            pairs.append((i, j))
            taken[0].add(i)
            taken[1].add(j)
    return np.asarray(pairs, dtype=np.int64).reshape(-1, 2)


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union (n, m) of ``boxes`` (n, 4) and ``others`` (m, 4); 0 where both are empty."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(given[:, 2:] - given[:, :2]).prod(axis=1) for given in (boxes, others)]
    united = areas[0][:, None] + areas[1][None, :] - shared
    overlaps: NDArray[np.float64] = np.divide(shared, united, out=np.zeros_like(shared), where=united > 0)
    return overlaps
