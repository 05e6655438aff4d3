"""Whether arrays can be what is right about images."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Truth

OF_IMAGES = {"sizes": (2,), "scales": ()}
OF_OBJECTS = {"boxes": (4,), "classes": (), "ignored": (), "areas": ()}
"""From arrays with a row for each image, and for each object, to the shape of a row."""
KINDS = {"boxes": "f", "classes": "iu", "offsets": "iu", "ignored": "b", "areas": "f", "sizes": "iu", "scales": "f"}
"""NumPy's kinds of the values."""


def require_truth(truth: Truth, count: int, class_names: Sequence[str]) -> None:
    """Check the arrays of ``count`` images.

    Raises:
        ValueError: they cannot be; says why.
    """
    offsets = truth["offsets"]
    for name, kinds in KINDS.items():
        if truth[name].dtype.kind not in kinds:
            raise ValueError(f"{name} are {truth[name].dtype}, which they cannot be")
    _require_shape("offsets", offsets, (count + 1,))
    if offsets[0] != 0 or (np.diff(offsets) < 0).any():
        raise ValueError("offsets do not rise from 0")
    for names, rows in ((OF_IMAGES, count), (OF_OBJECTS, int(offsets[-1]))):
        for name, shape in names.items():
            _require_shape(name, truth[name], (rows, *shape))
    classes, boxes = truth["classes"], truth["boxes"]
    wrong = classes[(classes < 0) | (classes >= len(class_names))]
    if len(wrong):
        raise ValueError(f"classes hold {wrong[0]}, expected 0 to {len(class_names) - 1}")
    if not (np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()):
        raise ValueError("boxes are not x1 y1 x2 y2 with x1 below x2 and y1 below y2")
    for name in ("sizes", "scales", "areas"):
        if not (np.isfinite(truth[name]).all() and (truth[name] > 0).all()):
            raise ValueError(f"{name} are not all above 0")


def _require_shape(name: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name} have the shape {list(array.shape)}, expected {list(shape)}")
