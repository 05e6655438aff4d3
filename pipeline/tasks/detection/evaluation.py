"""COCO's figures of detections: average precision by overlap and by size, average recall, each class.

They are those of faster-coco-eval, which is pycocotools' evaluation in C++. Objects and detections get numbers from 1,
since both libraries take an object with the number 0 for none.
"""

import logging
from dataclasses import dataclass

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.tasks.detection.instances import Detected, GroundTruth

logger = logging.getLogger(__name__)

SIZES = ("all", "small", "medium", "large")
"""Of objects: up to 32 x 32 and 96 x 96 pixels, and above."""
IOU_50, IOU_75 = 0, 5
"""Positions of thresholds."""


@dataclass(frozen=True)
class Evaluation:
    """Precision and recall of a set of detections; NaN where there is nothing to be found."""

    precision: NDArray[np.float64]
    """(T, R, C, A): at each threshold of overlap, each of ``matching.RECALLS``, class and size of objects."""
    recall: NDArray[np.float64]
    """(T, C, A): the share of objects that is found."""

    def scores(self) -> dict[str, float]:
        """Return the figures by which detectors are compared; those without an object of their size are left out."""
        precision = self.precision[..., 0]
        figures = {
            "ap": precision,
            "ap50": precision[IOU_50],
            "ap75": precision[IOU_75],
            **{f"ap_{name}": self.precision[..., i] for i, name in enumerate(SIZES) if i},
            "ar100": self.recall[..., 0],
        }
        return {name: float(np.nanmean(values)) for name, values in figures.items() if not np.isnan(values).all()}

    def by_class(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return AP and AP50 of each class, (C,); NaN of a class without objects."""
        precision = self.precision[..., 0]
        return precision.mean(axis=(0, 1)), precision[IOU_50].mean(axis=0)

    def curve(self, threshold: int) -> NDArray[np.float64]:
        """Return the precision at a threshold and each of ``matching.RECALLS``, (R,): the mean of the classes."""
        curve: NDArray[np.float64] = np.nanmean(self.precision[threshold, ..., 0], axis=1)
        return curve


def evaluate(found: Detected, truth: GroundTruth, num_classes: int) -> Evaluation:
    """Return COCO's evaluation of ``found``.

    Raises:
        UserError: there is no object to be found.
    """
    if not truth.counted.any():
        raise UserError(
            f"no object on any of {len(truth)} images counts, so that AP says nothing; give images with objects"
        )
    known, seen = _coco(truth, num_classes), COCO(print_function=logger.debug)
    seen.dataset = {**known.dataset, "annotations": _annotations(found, found.boxes[:, 2] * found.boxes[:, 3])}
    for row, score in zip(seen.dataset["annotations"], found.scores.tolist(), strict=True):
        row["score"] = score
    seen.createIndex()
    coco = COCOeval_faster(known, seen, "bbox", print_function=logger.debug)
    coco.evaluate()
    coco.accumulate()
    precision, recall = (np.asarray(coco.eval[name])[..., -1] for name in ("precision", "recall"))
    return Evaluation(*(np.where(values < 0, np.nan, values) for values in (precision, recall)))


def _coco(truth: GroundTruth, num_classes: int) -> COCO:
    rows = _annotations(truth, truth.areas)
    for row, ignored in zip(rows, truth.ignored.tolist(), strict=True):
        row["iscrowd"] = int(ignored)
    coco = COCO(print_function=logger.debug)
    sizes = enumerate(truth.sizes.tolist(), start=1)
    coco.dataset = {
        "images": [{"id": number, "height": height, "width": width} for number, (height, width) in sizes],
        "categories": [{"id": number, "name": str(number)} for number in range(1, num_classes + 1)],
        "annotations": rows,
    }
    coco.createIndex()
    return coco


def _annotations(given: Detected | GroundTruth, areas: NDArray[np.float64]) -> list[dict[str, object]]:
    columns = given.images.tolist(), given.classes.tolist(), given.boxes.tolist(), areas.tolist()
    return [
        {"id": number, "image_id": image + 1, "category_id": kind + 1, "bbox": box, "area": area}
        for number, (image, kind, box, area) in enumerate(zip(*columns, strict=True), start=1)
    ]
