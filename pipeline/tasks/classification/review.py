"""What the predictions of a split teach: mistakes, classes, what is taken for what."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.base import Confusion, Image, Review, Row, Tile
from pipeline.tasks.classification.metrics import Labels, Logits, log_softmax

IMAGE_COLUMNS = ("file", "truth", "prediction", "probability", "probability_of_truth")
CLASS_COLUMNS = ("class", "images", "predicted", "precision", "recall", "f1")


def image_rows(names: Sequence[str], logits: Logits, labels: Labels, class_names: Sequence[str]) -> list[Row]:
    """Return truth and prediction of each image with their probabilities, by ``IMAGE_COLUMNS``."""
    probabilities = np.exp(log_softmax(logits))
    rows: list[Row] = []
    for name, row, right, found in zip(names, probabilities, labels, logits.argmax(axis=1), strict=True):
        cells = name, class_names[right], class_names[found], f"{row[found]:.6f}", f"{row[right]:.6f}"
        rows.append(dict(zip(IMAGE_COLUMNS, cells, strict=True)))
    return rows


def review(rows: Sequence[Row], class_names: Sequence[str]) -> Review:
    """Return mistakes, least sure images, figures of each class and the confusion of ``rows``.

    Equally sure images keep the order of ``rows``; a sure mistake with a less probable truth comes first.
    """
    probability = [float(row["probability"]) for row in rows]
    wrong = [i for i, row in enumerate(rows) if not _is_right(row)]
    confusion = count_pairs(rows, class_names)
    classes = class_rows(confusion)
    return Review(
        mistakes=sorted(wrong, key=lambda i: (-probability[i], float(rows[i]["probability_of_truth"]))),
        least_sure=sorted(range(len(rows)), key=lambda i: probability[i]),
        class_columns=CLASS_COLUMNS,
        classes=classes,
        worst_first=sorted(range(len(classes)), key=lambda i: float(classes[i]["f1"] or "inf")),
        confusion=confusion,
    )


def count_pairs(rows: Sequence[Row], class_names: Sequence[str]) -> Confusion:
    """Return how many of ``rows`` have each pair of truth and prediction."""
    positions = {name: i for i, name in enumerate(class_names)}
    counts = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    pairs = [(positions[row["truth"]], positions[row["prediction"]]) for row in rows]
    np.add.at(counts, tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T), 1)
    return Confusion(tuple(class_names), counts)


def class_rows(confusion: Confusion) -> list[Row]:
    """Return the figures of each class, by ``CLASS_COLUMNS``; the recall is the accuracy on the images of the class.

    F1 is 2 tp / (images + predicted), which is the harmonic mean of precision and recall.
    """
    counts = confusion.counts
    right, images, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    figures = (_share(right, predicted), _share(right, images), _share(2 * right, images + predicted))
    cells = zip(confusion.names, map(str, images), map(str, predicted), *figures, strict=True)
    return [dict(zip(CLASS_COLUMNS, row, strict=True)) for row in cells]


def tile(pixels: Image, row: Row) -> Tile:
    """Return the image as it is; under it file, truth, prediction and their probabilities."""
    is_right = _is_right(row)
    found = f"{row['prediction']} {float(row['probability']):.1%}"
    truth = "right" if is_right else f"is {row['truth']} {float(row['probability_of_truth']):.1%}"
    return Tile(pixels, (row["file"], found, truth), is_right)


def _is_right(row: Row) -> bool:
    return row["truth"] == row["prediction"]


def _share(part: NDArray[np.int64], whole: NDArray[np.int64]) -> list[str]:
    return [f"{one / all_of_it:.4f}" if all_of_it else "" for one, all_of_it in zip(part, whole, strict=True)]
