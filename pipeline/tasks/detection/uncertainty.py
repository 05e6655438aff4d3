"""How much AP would differ on other images of the same kind.

AP is no mean over images, so that its standard error is estimated by leaving images out: they are dealt out into
groups, and AP is computed without each group in turn (delete-a-group jackknife; Shao and Tu, The Jackknife and
Bootstrap, 1995, chapter 2.3). With G groups the variance is (G - 1) / G sum_g (AP_g - mean)^2. What a detection finds
does not depend on other images, so it is looked for once; the rest is counting with weights of 0 and 1.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.detection.instances import Detected, GroundTruth
from pipeline.tasks.detection.matching import RECALLS, match

GROUPS = 50
"""With so many the standard error is itself known to a tenth."""


def weighted_ap(found: Detected, truth: GroundTruth, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return COCO's AP where each of N images counts as often as ``weights`` (G, N) say, (G,); NaN: nothing counts."""
    matches = match(found, truth)
    by_class = []
    for kind in np.unique(truth.classes[truth.counted]):
        wanted = np.bincount(truth.images[truth.counted & (truth.classes == kind)], minlength=len(truth))
        own = np.flatnonzero((found.classes == kind) & matches.counted)
        own = own[np.argsort(-found.scores[own], kind="stable")]
        by_class.append(
            _class_ap(matches.right[:, own], matches.ignored[:, own], weights[:, found.images[own]], weights @ wanted)
        )
    return _mean_of_known(np.array(by_class))


def _class_ap(
    right: NDArray[np.bool_], ignored: NDArray[np.bool_], weights: NDArray[np.int64], wanted: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the AP (G,) of a class; NaN where no object is wanted.

    Args:
        right: (T, n), whether each detection, by falling score, is right at each threshold.
        ignored: (T, n), whether it does not count.
        weights: (G, n), how often it counts.
        wanted: (G,), the number of objects.
    """
    total = np.zeros(len(weights))
    listed = weights.cumsum(axis=1)
    objects = np.maximum(wanted, 1)[:, None]
    for hits, skipped in zip(right, ignored, strict=True):
        places = np.flatnonzero(hits)
        if not len(places):
            continue
        found = weights[:, places].cumsum(axis=1)
        answers = (
            listed[:, places] - (weights * skipped).cumsum(axis=1)[:, places] if skipped.any() else listed[:, places]
        )
        precision = found / np.maximum(answers, 1)
        best_from_here = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        reached = np.searchsorted(RECALLS, found / objects, side="right")
        total += (best_from_here * np.diff(reached, axis=1, prepend=0)).sum(axis=1)
    return np.where(wanted > 0, total / (len(right) * len(RECALLS)), np.nan)


def _mean_of_known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    means = np.where(known, values, 0.0).sum(axis=0) / np.maximum(counts, 1)
    return np.where(counts > 0, means, np.nan)


def ap_without_groups(found: Detected, truth: GroundTruth, *, groups: int = GROUPS) -> NDArray[np.float64]:
    """Return AP without each group of images in turn; of fewer images than ``groups`` each is a group."""
    number = min(groups, len(truth))
    group = np.arange(len(truth)) % number
    return weighted_ap(found, truth, (group != np.arange(number)[:, None]).astype(np.int64))


def jackknife_error(without: NDArray[np.float64]) -> float:
    """Return the standard error of a figure that is ``without`` each group in turn (G,); 0 where one group is all."""
    known = without[~np.isnan(without)]
    if len(known) < 2:
        return 0.0
    return math.sqrt((len(known) - 1) * float(known.var()))
