"""What the predictions of a split teach: mistakes, classes, what is taken for what."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.base import Confusion, CurvePoint, Gallery, Image, Review, Row, Tile
from pipeline.tasks.classification.image_rows import IMAGE_COLUMNS

CLASS_COLUMNS = ("class", "images", "predicted", "precision", "recall", "f1")
CLASS_NOTE = "On the test split. The recall is the share of the images of the class that are right."
CURVE_POINTS = 100
"""Of the curve of precision over recall."""


def review(rows: Sequence[Row], class_names: Sequence[str]) -> Review:
    """Return mistakes, least sure images, figures of each class, the confusion and the precision of ``rows``.

    Equally sure images keep the order of ``rows``; a sure mistake with a less probable truth comes first.
    """
    probability = [float(row["probability"]) for row in rows]
    wrong = [i for i, row in enumerate(rows) if not _is_right(row)]
    surest = sorted(wrong, key=lambda i: (-probability[i], float(rows[i]["probability_of_truth"])))
    least_sure = sorted(range(len(rows)), key=lambda i: probability[i])
    images = f"{len(rows):,} test images"
    confusion = count_pairs(rows, class_names)
    classes = class_rows(confusion)
    return Review(
        summary=f"{len(wrong):,} of {images} are wrong",
        mistake_columns=IMAGE_COLUMNS,
        mistakes=[rows[i] for i in surest],
        wrong=wrong,
        galleries=[
            Gallery(
                "surest_mistakes",
                f"the surest of {len(wrong):,} mistakes on {images}",
                surest,
                f"no mistake on {images}",
            ),
            Gallery("least_sure", f"the least sure of {images}", least_sure, "no test images"),
        ],
        class_columns=CLASS_COLUMNS,
        classes=classes,
        worst_first=sorted(range(len(classes)), key=lambda i: float(classes[i]["f1"] or "inf")),
        class_note=CLASS_NOTE,
        confusion=confusion,
        precision_recall=_precision_recall(rows, sorted(range(len(rows)), key=lambda i: -probability[i])),
    )


def _precision_recall(rows: Sequence[Row], surest: Sequence[int]) -> list[CurvePoint]:
    """Return which share of the answers is right, and which share of all images has a right one, of the surest alone.

    Args:
        surest: the positions of all rows, the surest first.
    """
    right = np.cumsum([_is_right(rows[i]) for i in surest])
    answered = sorted({-(-len(rows) * point // CURVE_POINTS) for point in range(1, CURVE_POINTS + 1)} - {0})
    return [CurvePoint("surest answers", float(right[n - 1] / len(rows)), float(right[n - 1] / n)) for n in answered]


def count_pairs(rows: Sequence[Row], class_names: Sequence[str]) -> Confusion:
    """Return how many of ``rows`` have each pair of truth and prediction."""
    positions = {name: i for i, name in enumerate(class_names)}
    counts = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    pairs = [(positions[row["truth"]], positions[row["prediction"]]) for row in rows]
    np.add.at(counts, tuple(np.array(pairs, dtype=np.int64).reshape(-1, 2).T), 1)
    return Confusion(tuple(class_names), counts, "images")


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
