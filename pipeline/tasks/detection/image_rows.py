"""What is on each image and what is found there as rows of a table, from which both are read back to the bit.

Boxes stand in pixels of the network's input, as corners x1, y1, x2, y2.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, Truth
from pipeline.tasks.base import Row
from pipeline.tasks.detection.instances import BOXES, CLASSES, COUNT, SCORES

IMAGE_COLUMNS = ("file", "objects", "detections", "height", "width", "scale", "truth", "found")
"""``truth`` is JSON: for each object its class, box, area in pixels of the original, and 1 where it is ignored.

``found`` is JSON as well: for each detection its class, score and box.
"""

_OBJECT = ("classes", "boxes", "areas", "ignored")


def image_rows(names: Sequence[str], outputs: Outputs, truth: Truth, class_names: Sequence[str]) -> list[Row]:
    """Return a row for each image, by ``IMAGE_COLUMNS``."""
    rows: list[Row] = []
    for image, name in enumerate(names):
        own = slice(*truth["offsets"][image : image + 2])
        objects = [
            [class_names[kind], *_short(box), *_short([area]), int(ignored)]
            for kind, box, area, ignored in zip(*(truth[key][own] for key in _OBJECT), strict=True)
        ]
        listed = slice(int(outputs[COUNT].reshape(-1)[image]))
        found = [
            [class_names[kind], *_short([score]), *_short(box)]
            for kind, score, box in zip(*(outputs[key][image, listed] for key in (CLASSES, SCORES, BOXES)), strict=True)
        ]
        numbers = len(objects), len(found), *truth["sizes"][image], repr(float(truth["scales"][image]))
        cells = [name, *map(str, numbers), _compact(objects), _compact(found)]
        rows.append(dict(zip(IMAGE_COLUMNS, cells, strict=True)))
    return rows


def read_rows(rows: Sequence[Row], class_names: Sequence[str]) -> tuple[Outputs, Truth]:
    """Return outputs and truth of the images in ``rows``."""
    numbers = {name: number for number, name in enumerate(class_names)}
    objects, found = ([json.loads(row[column]) for row in rows] for column in ("truth", "found"))
    flat = [item for items in objects for item in items]
    truth = {
        "boxes": _table([item[1:5] for item in flat], np.float32, 4),
        "classes": np.array([numbers[item[0]] for item in flat], np.int64),
        "offsets": np.cumsum([0, *map(len, objects)], dtype=np.int64),
        "ignored": np.array([item[6] for item in flat], bool),
        "areas": np.array([item[5] for item in flat], np.float32),
        "sizes": _table([[row["height"], row["width"]] for row in rows], np.int64, 2),
        "scales": np.array([row["scale"] for row in rows], np.float64),
    }
    most = max(map(len, found), default=0)
    outputs = {
        COUNT: np.array([[len(items)] for items in found], np.int32),
        BOXES: np.zeros((len(rows), most, 4), np.float32),
        SCORES: np.zeros((len(rows), most), np.float32),
        CLASSES: np.full((len(rows), most), -1, np.int32),
    }
    for image, items in enumerate(found):
        outputs[BOXES][image, : len(items)] = _table([item[2:] for item in items], np.float32, 4)
        outputs[SCORES][image, : len(items)] = [item[1] for item in items]
        outputs[CLASSES][image, : len(items)] = [numbers[item[0]] for item in items]
    return outputs, truth


def named_classes(row: Row) -> list[str]:
    """Return the classes of what is, and of what is found, on the image of ``row``, each once."""
    return list(dict.fromkeys(item[0] for column in ("truth", "found") for item in json.loads(row[column])))


def _short(values: Iterable[np.float32]) -> list[float]:
    """Return float32 numbers with as few digits as tell them apart."""
    return [float(str(np.float32(value))) for value in values]


def _compact(items: list[list[Any]]) -> str:
    return json.dumps(items, separators=(",", ":"), ensure_ascii=False)


def _table(rows: list[list[Any]], dtype: type[np.generic], columns: int) -> NDArray[Any]:
    return np.array(rows, dtype).reshape(-1, columns)
