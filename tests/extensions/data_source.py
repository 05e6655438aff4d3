"""A data source that comes with the pipeline: coloured squares, warm and cold."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.data.splits import ImageSource, images_in_memory

COUNT, SIZE = 120, 8


@contextlib.contextmanager
def open_squares(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001  (signature of Open)
    """Yield red squares on noise (class ``warm``) and blue ones (``cold``); they come without a test split."""
    pixels = np.random.default_rng(0).integers(0, 128, (COUNT, SIZE, SIZE, 3), dtype=np.uint8)
    categories = np.arange(COUNT, dtype=np.int64) % 2
    for image, category in zip(pixels, categories, strict=True):
        image[2:6, 2:6, 2 * category] = 255
    yield ImageSource(("warm", "cold"), {"train": images_in_memory(categories, "square", lambda i: pixels[i])})
