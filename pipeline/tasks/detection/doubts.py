"""When detections have nothing to do with the images."""

from collections.abc import Sequence

import numpy as np

from pipeline.tasks.detection.instances import Detected, GroundTruth
from pipeline.tasks.detection.matching import THRESHOLDS, match


def doubts(found: Detected, truth: GroundTruth, class_names: Sequence[str]) -> list[str]:
    """Return why a detector that finds ``found`` is not to be trusted."""
    images = f"{len(truth)} images"
    if not len(found.scores):
        return [f"finds nothing on any of {images}"]
    wanted = truth.classes[truth.counted]
    if not match(found, truth, THRESHOLDS[:1]).right.any():
        return [f"finds none of {len(wanted)} objects on {images}: no box overlaps one of its class by half"]
    answered = np.unique(found.classes)
    if len(answered) == 1 and len(np.unique(wanted)) > 1:
        return [f"finds nothing but {class_names[int(answered[0])]!r} on {images}"]
    return []
