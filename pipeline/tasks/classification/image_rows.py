"""What is right and what is found on each image, as rows of a table."""

from collections.abc import Sequence

import numpy as np

from pipeline.tasks.base import Row
from pipeline.tasks.classification.metrics import Labels, Logits, log_softmax

IMAGE_COLUMNS = ("file", "truth", "prediction", "probability", "probability_of_truth")


def image_rows(names: Sequence[str], logits: Logits, labels: Labels, class_names: Sequence[str]) -> list[Row]:
    """Return truth and prediction of each image with their probabilities, by ``IMAGE_COLUMNS``."""
    probabilities = np.exp(log_softmax(logits))
    rows: list[Row] = []
    for name, row, right, found in zip(names, probabilities, labels, logits.argmax(axis=1), strict=True):
        cells = name, class_names[right], class_names[found], f"{row[found]:.6f}", f"{row[right]:.6f}"
        rows.append(dict(zip(IMAGE_COLUMNS, cells, strict=True)))
    return rows
