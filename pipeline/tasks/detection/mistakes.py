"""What is wrong with each detection, and what becomes of each object."""

import enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.detection.instances import Detected, GroundTruth
from pipeline.tasks.detection.matching import NOTHING, THRESHOLDS, match, overlaps

RIGHT_FROM = float(THRESHOLDS[0])
"""The overlap from which on a box is on its object."""
NEAR_FROM = 0.1
"""The overlap from which on a box that is not on an object is meant for it."""


class Kind(enum.Enum):
    """What a detection is, or what becomes of an object; the value is what tables say."""

    RIGHT = "right"
    IGNORED = "ignored"
    WRONG_CLASS = "wrong class"
    POORLY_PLACED = "poorly placed"
    FOUND_TWICE = "found twice"
    NOTHING_THERE = "nothing there"
    MISSED = "missed"

    @property
    def is_wrong(self) -> bool:
        """Return whether a detection of this kind claims what is not so; a poorly placed one is nearly right."""
        return self in (Kind.WRONG_CLASS, Kind.FOUND_TWICE, Kind.NOTHING_THERE)


class Sorted(NamedTuple):
    """Detections and objects, sorted by what they are."""

    detections: list[Kind]
    objects: list[Kind]
    """``RIGHT``: it is found; ``WRONG_CLASS``, ``POORLY_PLACED``: as its detection is; ``IGNORED``; ``MISSED``."""
    meant: NDArray[np.int64]
    """The object of each detection; ``NOTHING`` where there is none."""
    shares: NDArray[np.float64]
    """How much each detection overlaps its object, or the nearest one of its class."""


def sort_out(found: Detected, truth: GroundTruth) -> Sorted:
    """Return what each detection and object is, detections by falling score.

    A detection that is not right is meant for an object that none is on: one of another class that it is on, else the
    one of its own class that it overlaps most, by ``NEAR_FROM`` at least. One that is on an object of any class that
    another is meant for already finds it twice, and takes nothing from it.
    """
    matches = match(found, truth, THRESHOLDS[:1])
    meant = matches.objects[0].copy()
    kinds = [_KINDS[state] for state in zip(matches.right[0].tolist(), matches.ignored[0].tolist(), strict=True)]
    objects = [Kind.IGNORED if ignored else Kind.MISSED for ignored in truth.ignored.tolist()]
    for position in meant[matches.right[0]]:
        objects[position] = Kind.RIGHT
    shares = np.zeros(len(meant))
    starts = np.searchsorted(truth.images, np.arange(len(truth) + 1))
    for detection, image in enumerate(found.images):
        own = np.arange(*starts[image : image + 2])
        share = overlaps(found.boxes[[detection]], truth.boxes[own], truth.ignored[own])[0]
        is_same = truth.classes[own] == found.classes[detection]
        if kinds[detection] is Kind.NOTHING_THERE:
            is_free = np.array([objects[position] is Kind.MISSED for position in own], dtype=bool)
            kinds[detection], place = _without_match(share, is_same, is_free, truth.ignored[own])
            if place != NOTHING:
                meant[detection] = own[place]
                if kinds[detection] is not Kind.FOUND_TWICE:
                    objects[own[place]] = kinds[detection]
        relevant = is_same & ~truth.ignored[own] if meant[detection] == NOTHING else own == meant[detection]
        shares[detection] = share[relevant].max(initial=0.0)
    return Sorted(kinds, objects, meant, shares)


_KINDS = {(True, False): Kind.RIGHT, (False, True): Kind.IGNORED, (False, False): Kind.NOTHING_THERE}
"""From whether a match is right, and whether it is ignored, to what its detection is."""


def _without_match(
    share: NDArray[np.float64], is_same: NDArray[np.bool_], is_free: NDArray[np.bool_], ignored: NDArray[np.bool_]
) -> tuple[Kind, int]:
    """Return what a detection is that COCO's rule gives no object, and the position of the one it is meant for.

    Args:
        share: (G,), its overlap with each object on the image.
        is_same: (G,), whether that is of its class.
        is_free: (G,), whether nothing is meant for that so far.
        ignored: (G,), whether that is ignored.
    """
    other, near = (np.where(which & is_free, share, 0.0) for which in (~is_same, is_same))
    if other.max(initial=0.0) >= RIGHT_FROM:
        return Kind.WRONG_CLASS, int(other.argmax())
    if near.max(initial=0.0) >= NEAR_FROM:
        return Kind.POORLY_PLACED, int(near.argmax())
    taken = np.where(ignored, 0.0, share)
    if taken.max(initial=0.0) >= RIGHT_FROM:
        own = np.where(is_same, taken, 0.0)
        return Kind.FOUND_TWICE, int((own if own.max() >= RIGHT_FROM else taken).argmax())
    return Kind.NOTHING_THERE, NOTHING
