"""Which object each detection finds, by COCO's rule.

Detections of a class on an image are taken by falling score. Each takes the object of its class that it overlaps most
of those that none before it has taken, if by the threshold at least; an ignored object only where there is no other,
and as often as one likes: that detection is then ignored as well. How much of an ignored object is covered does not
matter: what counts there is the share of the detection that lies in it. See ``COCOeval.evaluateImg`` of pycocotools.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.detection.instances import Detected, GroundTruth

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""The overlaps of COCO's AP."""
MOST = 100
"""Detections of a class on an image that count."""
NOTHING = -1
RECALLS = np.linspace(0, 1, 101)
"""At which COCO takes the precision."""


class Matches(NamedTuple):
    """What each of M detections finds at each of T thresholds."""

    objects: NDArray[np.int64]
    """(T, M): the position of the object; ``NOTHING`` where there is none."""
    ignored: NDArray[np.bool_]
    """(T, M): whether that object is an ignored one."""
    counted: NDArray[np.bool_]
    """(M,): whether the detection is among the ``MOST`` surest of its class and image."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """Return whether each detection is right, (T, M)."""
        right: NDArray[np.bool_] = (self.objects != NOTHING) & ~self.ignored
        return right


def overlaps(
    boxes: NDArray[np.float64], others: NDArray[np.float64], ignored: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the intersection over union (D, G) of ``boxes`` (D, 4) with ``others`` (G, 4), as x, y, width, height.

    Args:
        ignored: (G,), of which of ``others`` the union is only the box.
    """
    starts = np.maximum(boxes[:, None, :2], others[None, :, :2])
    ends = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    sides = ends - starts
    shared = np.where((sides > 0).all(axis=2), sides[..., 0] * sides[..., 1], 0.0)
    own, other = boxes[:, 2] * boxes[:, 3], others[:, 2] * others[:, 3]
    union = np.where(ignored[None], own[:, None], own[:, None] + other[None] - shared)
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def match(found: Detected, truth: GroundTruth, thresholds: NDArray[np.float64] = THRESHOLDS) -> Matches:
    """Return which object each detection finds at each of ``thresholds``."""
    number = len(found.scores)
    objects = np.full((len(thresholds), number), NOTHING)
    counted = np.zeros(number, dtype=bool)
    known = _by_image_and_class(truth.images, truth.classes)
    for key, listed in _by_image_and_class(found.images, found.classes).items():
        own = listed[:MOST]
        counted[own] = True
        others = known.get(key)
        if others is None:
            continue
        shares = overlaps(found.boxes[own], truth.boxes[others], truth.ignored[others])
        taken = _take(shares, truth.ignored[others], thresholds)
        objects[:, own] = np.where(taken == NOTHING, NOTHING, others[taken])
    ignored = np.append(truth.ignored, False)[objects]  # the last one stands for nothing
    return Matches(objects, ignored, counted)


def _by_image_and_class(
    images: NDArray[np.int64], classes: NDArray[np.int64]
) -> dict[tuple[int, int], NDArray[np.int64]]:
    """Return the positions of each image and class, in their order."""
    if not len(images):
        return {}
    order = np.lexsort((classes, images))
    is_new = (np.diff(images[order]) != 0) | (np.diff(classes[order]) != 0)
    groups = np.split(order, np.flatnonzero(is_new) + 1)
    return {(int(images[group[0]]), int(classes[group[0]])): group for group in groups}


def _take(
    shares: NDArray[np.float64], ignored: NDArray[np.bool_], thresholds: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Return which of G objects each of D detections takes, (T, D), by their overlaps ``shares`` (D, G)."""
    bounds = np.minimum(thresholds, 1 - 1e-10)
    taken = np.full((len(bounds), len(shares)), NOTHING)
    is_free = np.ones((len(bounds), len(ignored)), dtype=bool)
    last, every = len(ignored) - 1, np.arange(len(bounds))
    for row in np.flatnonzero(shares.max(axis=1) >= bounds.min()):
        fits = is_free & (shares[row] >= bounds[:, None])
        fits &= ~ignored | ~(fits & ~ignored).any(axis=1, keepdims=True)
        best = last - np.where(fits, shares[row], -1.0)[:, ::-1].argmax(axis=1)  # the last one of those that tie
        some = fits.any(axis=1)
        taken[some, row] = best[some]
        is_free[every[some], best[some]] = ignored[best[some]]
    return taken
