"""Detections and objects as flat arrays, in the pixels of the original images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.core.errors import GateError

COUNT, BOXES, SCORES, CLASSES = "num_detections", "detection_boxes", "detection_scores", "detection_classes"
"""The outputs: int32 (N, 1), float32 (N, D, 4) x1 y1 x2 y2, float32 (N, D), int32 (N, D)."""


@dataclass(frozen=True)
class GroundTruth:
    """The M objects on N images."""

    images: NDArray[np.int64]
    """(M,): the image of each, in rising order."""
    classes: NDArray[np.int64]
    """(M,)."""
    boxes: NDArray[np.float64]
    """(M, 4): x, y, width, height."""
    areas: NDArray[np.float64]
    """(M,): by which an object is small, medium or large."""
    ignored: NDArray[np.bool_]
    """(M,): what is found on such an object is neither right nor wrong."""
    sizes: NDArray[np.int64]
    """(N, 2): height and width of each image."""

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Return which objects are to be found, (M,)."""
        return ~self.ignored


@dataclass(frozen=True)
class Detected:
    """The M detections on all images, in the one order that neither ties nor the order of outputs can change.

    By image, then falling score, class, box. Where scores tie, AP depends on the order: shuffled, it moved by 0.002.
    """

    images: NDArray[np.int64]
    """(M,)."""
    classes: NDArray[np.int64]
    """(M,)."""
    boxes: NDArray[np.float64]
    """(M, 4): x, y, width, height."""
    scores: NDArray[np.float32]
    """(M,)."""

    def from_score(self, score: float) -> "Detected":
        """Return those with at least ``score``."""
        kept = self.scores >= score
        return Detected(self.images[kept], self.classes[kept], self.boxes[kept], self.scores[kept])


def ground_truth(truth: Truth) -> GroundTruth:
    """Return the objects of ``truth``, which holds the arrays of the task's ``truth_names``."""
    images = np.repeat(np.arange(len(truth["sizes"])), np.diff(truth["offsets"]))
    corners = truth["boxes"].astype(np.float64) / truth["scales"][images, None]
    return GroundTruth(
        images,
        truth["classes"].astype(np.int64),
        sized(corners),
        truth["areas"].astype(np.float64),
        truth["ignored"].astype(bool),
        truth["sizes"].astype(np.int64),
    )


def detected(outputs: Outputs, truth: Truth) -> Detected:
    """Return the detections in ``outputs`` (see ``COUNT``), cut at the edges of the images that ``truth`` tells of.

    Raises:
        GateError: a box or a score is not finite.
    """
    scores = outputs[SCORES]
    listed = np.arange(scores.shape[1]) < outputs[COUNT].reshape(-1, 1)
    images, _ = np.nonzero(listed)
    corners, scores = outputs[BOXES][listed].astype(np.float64), scores[listed]
    if not (np.isfinite(corners).all() and np.isfinite(scores).all()):
        raise GateError("the detections are not all finite, so they cannot be scored")
    edges = np.tile(truth["sizes"][images][:, ::-1], 2)
    corners = np.clip(corners / truth["scales"][images, None], 0, edges)
    return ordered(images, outputs[CLASSES][listed].astype(np.int64), sized(corners), scores.astype(np.float32))


def require_named(outputs: Outputs, class_names: Sequence[str]) -> None:
    """Raise ValueError where a detection in ``outputs`` (see ``COUNT``) is of none of ``class_names``."""
    classes = outputs[CLASSES]
    listed = classes[np.arange(classes.shape[1]) < outputs[COUNT].reshape(-1, 1)]
    wrong = listed[(listed < 0) | (listed >= len(class_names))]
    if len(wrong):
        raise ValueError(f"a detection is of class {wrong[0]}, and there are {len(class_names)} names, from 0 on")


def ordered(
    images: NDArray[np.int64], classes: NDArray[np.int64], boxes: NDArray[np.float64], scores: NDArray[np.float32]
) -> Detected:
    """Return the detections in their order."""
    order = np.lexsort((*boxes.T[::-1], classes, -scores, images))
    return Detected(images[order], classes[order], boxes[order], scores[order])


def sized(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the boxes x1, y1, x2, y2 (M, 4) as x, y, width, height."""
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def cornered(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the boxes x, y, width, height (M, 4) as x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
