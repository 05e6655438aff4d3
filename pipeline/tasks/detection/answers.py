"""What is said of detections: boxes in the pixels of each image as it is shown."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs
from pipeline.core.printable import printable
from pipeline.core.text_table import in_columns
from pipeline.tasks.base import Classes, Placement, Prediction
from pipeline.tasks.detection.instances import BOXES, CLASSES, COUNT, SCORES

COLUMNS = ("class", "category_id", "score", "x1", "y1", "x2", "y2")


def placed_boxes(boxes: NDArray[np.float32], image: Placement) -> NDArray[np.float64]:
    """Return ``boxes`` (M, 4) of the network's input in the pixels of ``image``, none of them beyond its edges."""
    height, width = image.size
    placed: NDArray[np.float64] = np.clip(boxes.astype(np.float64) / image.scale, 0.0, [width, height, width, height])
    return placed


def predictions(
    images: Sequence[Placement], outputs: Outputs, classes: Classes, *, top: int | None, min_score: float
) -> list[Prediction]:
    """Return what is detected on each image, the surest first.

    Args:
        outputs: the four arrays of ``pipeline.tasks.detection.instances``, each image's by falling score.
        top: detections of an image at most; None: all.
        min_score: score from which on a detection counts.
    """
    found = []
    for row, image in enumerate(images):
        scores = outputs[SCORES][row][: int(outputs[COUNT][row, 0])]
        kept = np.flatnonzero(scores >= min_score)[:top]
        boxes = placed_boxes(outputs[BOXES][row][kept], image)
        numbers = outputs[CLASSES][row][kept]
        found.append(_prediction(image, boxes, scores[kept], numbers, classes))
    return found


def _prediction(
    image: Placement,
    boxes: NDArray[np.float64],
    scores: NDArray[np.float32],
    numbers: NDArray[np.int32],
    classes: Classes,
) -> Prediction:
    """Return what the text, the JSON object and the table say of an image's detections."""
    ids = classes.ids or len(classes.names) * (None,)
    things, rows, cells = [], [], []
    for box, score, number in zip(boxes.round(2).tolist(), scores.tolist(), numbers.tolist(), strict=True):
        what = {"class": classes.names[number], "category_id": ids[number], "score": round(score, 6)}
        things.append({**what, "box": box})
        rows.append({**what, **dict(zip(COLUMNS[3:], box, strict=True))})
        x1, y1, x2, y2 = (f"{value:.0f}" for value in box)
        cells.append([printable(classes.names[number]), f"{score:.2%}", "at", f"{x1},", f"{y1},", f"{x2},", y2])
    height, width = image.size
    about = {"width": width, "height": height, "detections": things}
    text = "; ".join(map(" ".join, cells)) or "nothing"
    return Prediction(image.name, about, text, rows, in_columns(cells) if len(cells) > 1 else ())
