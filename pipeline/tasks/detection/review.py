"""What the detections on a split teach: mistakes, classes, what is taken for what, precision over recall."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.base import Confusion, CurvePoint, Gallery, Review, Row
from pipeline.tasks.detection.evaluation import IOU_50, IOU_75, Evaluation, evaluate
from pipeline.tasks.detection.image_rows import read_rows
from pipeline.tasks.detection.instances import Detected, GroundTruth, cornered, detected, ground_truth
from pipeline.tasks.detection.matching import NOTHING, RECALLS, THRESHOLDS, match
from pipeline.tasks.detection.mistakes import Kind, Sorted, sort_out
from pipeline.tasks.detection.operating_point import OperatingPoint, best_f1

MISTAKE_COLUMNS = ("file", "mistake", "truth", "prediction", "score", "overlap", "x1", "y1", "x2", "y2")
"""The box is that of the detection, of an object that is missed its own, in pixels of the original image."""
CLASS_COLUMNS = ("class", "objects", "ap", "ap50", "from_score", "detections", "precision", "recall", "f1")
CLASS_NOTE = (
    "On the test split. A detection is right from an overlap (intersection over union) of 0.5 on; precision and recall "
    "are those of the detections from the score on at which the F1 of the class is best."
)
BACKGROUND = "(background)"


class Split(NamedTuple):
    """A split with what is found on it."""

    names: list[str]
    classes: Sequence[str]
    truth: GroundTruth
    answers: Detected
    """From the score of the best F1 on."""
    kinds: Sorted


def review(rows: Sequence[Row], class_names: Sequence[str]) -> Review:
    """Return mistakes, galleries, figures of each class, the confusion and the curves of ``rows``.

    Raises:
        UserError: no object on the images counts.
    """
    outputs, truth = read_rows(rows, class_names)
    known = ground_truth(truth)
    found = detected(outputs, truth)
    evaluation = evaluate(found, known, len(class_names))
    points, best = _operating_points(found, known, len(class_names))
    answers = found.from_score(best.score)
    split = Split([row["file"] for row in rows], class_names, known, answers, sort_out(answers, known))
    classes = _class_rows(class_names, known, evaluation, points)
    wrong, missed = _wrong(split), _missed(split)
    return Review(
        summary=_summary(split, best),
        mistake_columns=MISTAKE_COLUMNS,
        mistakes=[*_wrong_rows(split, wrong), *_missed_rows(split, missed)],
        wrong=sorted({*answers.images[wrong].tolist(), *known.images[missed].tolist()}),
        galleries=_galleries(split, wrong, missed),
        class_columns=CLASS_COLUMNS,
        classes=classes,
        worst_first=sorted(range(len(classes)), key=lambda i: float(classes[i]["ap"] or "inf")),
        class_note=CLASS_NOTE,
        confusion=_confusion(split),
        precision_recall=[
            CurvePoint(f"IoU {THRESHOLDS[place]:g}", *point)
            for place in (IOU_50, IOU_75)
            for point in zip(RECALLS.tolist(), evaluation.curve(place).tolist(), strict=True)
        ],
        least_score=best.score,
    )


def _operating_points(
    found: Detected, truth: GroundTruth, num_classes: int
) -> tuple[list[OperatingPoint], OperatingPoint]:
    """Return the best point of each class, and that of all of them together."""
    matches = match(found, truth, THRESHOLDS[:1])
    right, counts = matches.right[0], ~matches.ignored[0]
    wanted = np.bincount(truth.classes[truth.counted], minlength=num_classes)
    points = []
    for kind in range(num_classes):
        own = counts & (found.classes == kind)
        points.append(best_f1(found.scores[own], right[own], int(wanted[kind])))
    return points, best_f1(found.scores[counts], right[counts], int(wanted.sum()))


def _class_rows(
    class_names: Sequence[str], truth: GroundTruth, evaluation: Evaluation, points: Sequence[OperatingPoint]
) -> list[Row]:
    wanted = np.bincount(truth.classes[truth.counted], minlength=len(class_names))
    rows: list[Row] = []
    for name, objects, ap, ap50, point in zip(class_names, wanted, *evaluation.by_class(), points, strict=True):
        figures = _known(ap), _known(ap50), f"{point.score:.4f}", str(point.detections)
        cells = name, str(objects), *figures, _known(point.precision), _known(point.recall), _known(point.f1)
        rows.append(dict(zip(CLASS_COLUMNS, cells, strict=True)))
    return rows


def _known(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.4f}"


def _summary(split: Split, best: OperatingPoint) -> str:
    kinds, objects = split.kinds.detections, split.kinds.objects
    wanted, missed = len(objects) - objects.count(Kind.IGNORED), objects.count(Kind.MISSED)
    wrong = sum(kind.is_wrong for kind in kinds)
    return (
        f"of {wanted:,} objects on {len(split.truth):,} test images {objects.count(Kind.RIGHT):,} are found and "
        f"{missed:,} missed; of {len(kinds):,} detections with a score of at least {best.score:.2f}, that of the best "
        f"F1, {kinds.count(Kind.POORLY_PLACED):,} are poorly placed and {wrong:,} wrong"
    )


def _wrong(split: Split) -> NDArray[np.int64]:
    """Return the detections that are not right, the surest first."""
    wrong = np.flatnonzero([kind.is_wrong or kind is Kind.POORLY_PLACED for kind in split.kinds.detections])
    return wrong[np.argsort(-split.answers.scores[wrong], kind="stable")]


def _missed(split: Split) -> NDArray[np.int64]:
    """Return the objects that are missed, those that take up most of their image first."""
    missed = np.flatnonzero([kind is Kind.MISSED for kind in split.kinds.objects])
    truth = split.truth
    shares = truth.boxes[missed, 2:].prod(axis=1) / truth.sizes[truth.images[missed]].prod(axis=1)
    return missed[np.argsort(-shares, kind="stable")]


def _wrong_rows(split: Split, positions: NDArray[np.int64]) -> Iterator[Row]:
    answers, kinds = split.answers, split.kinds
    boxes = cornered(answers.boxes)
    for i in positions:
        truth = "" if kinds.meant[i] == NOTHING else split.classes[split.truth.classes[kinds.meant[i]]]
        what = split.names[answers.images[i]], kinds.detections[i].value, truth, split.classes[answers.classes[i]]
        cells = *what, f"{answers.scores[i]:.6f}", f"{kinds.shares[i]:.4f}", *(f"{value:.2f}" for value in boxes[i])
        yield dict(zip(MISTAKE_COLUMNS, cells, strict=True))


def _missed_rows(split: Split, positions: NDArray[np.int64]) -> Iterator[Row]:
    truth, boxes = split.truth, cornered(split.truth.boxes)
    for i in positions:
        what = split.names[truth.images[i]], Kind.MISSED.value, split.classes[truth.classes[i]], "", "", ""
        yield dict(zip(MISTAKE_COLUMNS, (*what, *(f"{value:.2f}" for value in boxes[i])), strict=True))


def _galleries(split: Split, wrong: NDArray[np.int64], missed: NDArray[np.int64]) -> list[Gallery]:
    kinds, images, number = split.kinds.detections, split.answers.images, f"{len(split.truth):,} test images"
    poorly = np.array([kinds[i] is Kind.POORLY_PLACED for i in wrong], dtype=bool)
    return [
        Gallery(
            "missed",
            f"the largest of {len(missed):,} missed objects on {number}",
            _each_once(split.truth.images[missed]),
            f"no missed object on {number}",
        ),
        Gallery(
            "wrong",
            f"the surest of {(~poorly).sum():,} wrong detections on {number}",
            _each_once(images[wrong[~poorly]]),
            f"no wrong detection on {number}",
        ),
        Gallery(
            "poorly_placed",
            f"the surest of {poorly.sum():,} poorly placed detections on {number}",
            _each_once(images[wrong[poorly]]),
            f"no poorly placed detection on {number}",
        ),
    ]


def _each_once(images: NDArray[np.int64]) -> list[int]:
    return list(dict.fromkeys(images.tolist()))


def _confusion(split: Split) -> Confusion:
    """Return how many objects are found as what; a poorly placed detection is one of the background."""
    background = len(split.classes)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    truth, answers, kinds = split.truth, split.answers, split.kinds
    for kind, meant, found in zip(kinds.detections, kinds.meant, answers.classes, strict=True):
        if kind in (Kind.RIGHT, Kind.WRONG_CLASS):
            counts[truth.classes[meant], found] += 1
        elif kind is not Kind.IGNORED:
            counts[background, found] += 1
    for kind, right in zip(kinds.objects, truth.classes, strict=True):
        if kind in (Kind.MISSED, Kind.POORLY_PLACED):
            counts[right, background] += 1
    return Confusion((*split.classes, BACKGROUND), counts, "objects")
