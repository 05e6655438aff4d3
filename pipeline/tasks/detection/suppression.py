"""From all boxes and scores of a network to detections, as the graph does it where it suppresses by itself.

Scores of places and classes are one list, of which the surest ``candidates`` count. One of them falls where a surer one
of its class, which has not fallen itself, overlaps it by more than the threshold. What has fallen is found in rounds:
after as many as the longest chain of boxes, each of which would take out the next, nothing changes any more.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs
from pipeline.tasks.detection.instances import BOXES, CLASSES, COUNT, SCORES

ALL_BOXES, ALL_SCORES = "boxes", "scores"
"""The outputs of a network that drops nothing: float32 (N, P, 4) x1 y1 x2 y2 and (N, P, C), of P places."""
PADDING_CLASS = -1


class Suppression(NamedTuple):
    """The numbers of a suppression."""

    score_threshold: float
    """A detection is surer than that."""
    iou_threshold: float
    candidates: int
    rounds: int
    max_detections: int


def suppress(boxes: NDArray[np.float32], scores: NDArray[np.float32], settings: Suppression) -> Outputs:
    """Return the detections among ``boxes`` (N, P, 4) with ``scores`` (N, P, C), as four arrays; see ``instances``."""
    count, most = len(boxes), settings.max_detections
    found = {
        COUNT: np.zeros((count, 1), np.int32),
        BOXES: np.zeros((count, most, 4), np.float32),
        SCORES: np.zeros((count, most), np.float32),
        CLASSES: np.full((count, most), PADDING_CLASS, np.int32),
    }
    for image in range(count):
        places, classes = _kept(boxes[image], scores[image], settings)
        number = len(places)
        found[COUNT][image] = number
        found[BOXES][image, :number] = boxes[image, places]
        found[SCORES][image, :number] = scores[image, places, classes]
        found[CLASSES][image, :number] = classes
    return found


def _kept(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], settings: Suppression
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return place and class of each detection among ``boxes`` (P, 4) with ``scores`` (P, C), the surest first."""
    above = np.flatnonzero(scores > settings.score_threshold)
    order = above[np.argsort(-scores.reshape(-1)[above], kind="stable")][: settings.candidates]
    places, classes = np.divmod(order, scores.shape[1])
    over = np.tril(_overlaps(boxes[places]) > settings.iou_threshold, k=-1) & (classes[:, None] == classes)
    stays = np.ones(len(order), dtype=bool)
    for _ in range(settings.rounds):
        stays = ~(over & stays).any(axis=1)
    kept = np.flatnonzero(stays)[: settings.max_detections]
    return places[kept], classes[kept]


def _overlaps(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the intersection over union (K, K) of ``boxes`` (K, 4), x1 y1 x2 y2, in float32 as networks count."""
    starts = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    sides = np.maximum(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - starts, 0)
    shared = sides[..., 0] * sides[..., 1]
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    union = areas[:, None] + areas[None] - shared
    shares: NDArray[np.float32] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return shares
