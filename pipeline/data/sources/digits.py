"""The embedded default: scikit-learn's handwritten digits, 1,797 scans of 8 x 8 pixels in 10 classes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from pipeline.data.splits import ImageSource, images_in_memory

LARGEST_VALUE = 16  # of a pixel in the original scans


@contextlib.contextmanager
def open_digits(root: Path | None, download: bool) -> Iterator[ImageSource]:  # noqa: ARG001, FBT001  (signature of Open)
    """Yield the digits as grey RGB images; they come without a test split."""
    data = load_digits()
    grey = np.round(data.images * (255 / LARGEST_VALUE)).astype(np.uint8)  # (N, 8, 8)
    images = images_in_memory(
        data.target.astype(np.int64), "digit", lambda i: np.repeat(grey[i][:, :, None], 3, axis=2)
    )
    yield ImageSource(tuple(str(name) for name in data.target_names), {"train": images})
