"""Which detections of two lists count as the same: against enumeration, and at the ends of lists."""

import itertools

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou, nms

from pipeline.core.arrays import Outputs
from pipeline.core.errors import GateError
from pipeline.tasks.detection.parity import (
    BOXES,
    CLASSES,
    COUNT,
    SAME_IOU,
    SAME_SCORE,
    SCORES,
    Found,
    _overlaps,
    _pairs,
    compare_detections,
)

Row = tuple[tuple[float, float, float, float], float, int]
CAT = ((10.0, 10.0, 30.0, 30.0), 0.9, 0)
DOG = ((50.0, 20.0, 90.0, 60.0), 0.8, 1)
BIRD = ((5.0, 70.0, 25.0, 80.0), 0.6, 2)


def lists(*images: list[Row], size: int = 5) -> Outputs:
    """Return the arrays of detections, each image's list filled up to ``size``."""
    count = np.array([[len(rows)] for rows in images], np.int32)
    boxes, scores = np.zeros((len(images), size, 4), np.float32), np.zeros((len(images), size), np.float32)
    classes = np.full((len(images), size), -1, np.int32)
    for i, rows in enumerate(images):
        for j, (box, score, number) in enumerate(sorted(rows, key=lambda row: -row[1])):
            boxes[i, j], scores[i, j], classes[i, j] = box, score, number
    return {COUNT: count, BOXES: boxes, SCORES: scores, CLASSES: classes}


def moved(row: Row, *, x: float = 0.0, score: float = 0.0, number: int | None = None) -> Row:
    (x1, y1, x2, y2), old, known = row
    return (x1 + x, y1, x2 + x, y2), old + score, known if number is None else number


def agreement(found: list[Row], reference: list[Row], **options: int) -> tuple[float, int]:
    parity = compare_detections(lists(found, **options), lists(reference, **options), least_score=0.2)
    assert (parity.difference, parity.spread, parity.counted) == (None, None, "detections")
    return parity.agreement, parity.total


def test_the_same_lists_agree_whatever_fills_them_up() -> None:
    full, other = lists([CAT, DOG], [], [BIRD]), dict(lists([CAT, DOG], [], [BIRD]))
    other[BOXES] = other[BOXES].copy()
    other[BOXES][1] = 7.0
    found = compare_detections(other, full, least_score=0.2)
    assert (found.agreement, found.total, found.max_abs) == (1.0, 3, 0.0)


def test_boxes_scores_and_classes_decide() -> None:
    near = 20 * (1 - SAME_IOU) / (1 + SAME_IOU)  # of a square of 20 pixels: (20 - x) / (20 + x) is the overlap
    assert agreement([moved(CAT, x=0.99 * near)], [CAT]) == (1.0, 1)
    assert agreement([moved(CAT, x=1.01 * near)], [CAT]) == (0.0, 1)
    assert agreement([moved(CAT, score=-0.99 * SAME_SCORE), DOG], [CAT, DOG]) == (1.0, 2)
    assert agreement([moved(CAT, score=-1.01 * SAME_SCORE), DOG], [CAT, DOG]) == (0.5, 2)
    assert agreement([moved(CAT, number=1), DOG], [CAT, DOG]) == (0.5, 2)


def test_one_answer_in_the_place_of_another_counts_once() -> None:
    assert agreement([moved(CAT, x=20), DOG], [CAT, DOG]) == (0.5, 2)
    assert agreement([CAT], [CAT, DOG]) == (0.5, 2)
    assert agreement([CAT, DOG, BIRD], [CAT]) == (pytest.approx(1 / 3), 3)
    assert agreement([], []) == (1.0, 0)
    assert agreement([], [CAT]) == (0.0, 1)


def test_where_nothing_is_found_nothing_is_said_to_agree() -> None:
    nothing = compare_detections(lists([], []), lists([], []), least_score=0.2)
    assert nothing.in_words() == "there were no detections to count"
    some = compare_detections(lists([CAT, DOG]), lists([CAT]), least_score=0.2)
    assert some.in_words() == "50.00% of 2 detections get the trained network's answer"


def test_what_is_found_on_one_image_makes_up_for_nothing_on_another() -> None:
    found = compare_detections(lists([CAT], []), lists([], [CAT]), least_score=0.2)
    assert (found.agreement, found.total) == (0.0, 2)


def test_the_largest_shift_is_told_in_pixels() -> None:
    found = compare_detections(lists([moved(CAT, x=0.25), DOG]), lists([CAT, DOG]), least_score=0.2)
    assert found.max_abs == 0.25


def test_what_lies_at_the_end_of_a_list_may_be_missing_in_the_other() -> None:
    faint = ((40.0, 70.0, 60.0, 90.0), 0.2 + 0.9 * SAME_SCORE, 1)
    assert agreement([CAT], [CAT, faint]) == (1.0, 1)
    assert agreement([CAT], [CAT, moved(faint, score=0.2 * SAME_SCORE)]) == (0.5, 2)
    full = [CAT, DOG, BIRD]  # has no room for a fourth of 0.6 or less
    fourth = moved(BIRD, x=60, score=0.05)
    assert agreement(full, [CAT, DOG, fourth], size=3) == (1.0, 2)
    assert agreement(full, [CAT, DOG, fourth], size=4) == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize("seed", range(5))
def test_after_suppression_nothing_is_left_to_choose(seed: int) -> None:
    """Of crowds suppressed at 0.6 no box is the same as two others, so that pairs are all that is the same."""
    generator = np.random.default_rng(seed)
    corners = generator.uniform(0, 30, (200, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(5, 20, (200, 2))], axis=1)
    scores = generator.uniform(0.3, 1, 200)
    kept = nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.6).numpy()
    reference = Found(boxes[kept], scores[kept], np.zeros(len(kept), np.int64), 0.0)
    near = boxes[kept] + generator.normal(0, 0.5, (len(kept), 4))
    left = nms(torch.from_numpy(near), torch.from_numpy(scores[kept]), 0.6).numpy()
    found = Found(near[left], scores[kept][left], np.zeros(len(left), np.int64), 0.0)
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(reference.boxes)).numpy()
    np.testing.assert_allclose(_overlaps(found.boxes, reference.boxes), overlaps, atol=1e-12)
    same = (overlaps >= SAME_IOU) & (np.abs(found.scores[:, None] - reference.scores) <= SAME_SCORE)
    assert same.sum(axis=0).max() == same.sum(axis=1).max() == 1
    assert sorted(map(tuple, _pairs(found, reference).tolist())) == sorted(map(tuple, np.argwhere(same).tolist()))


def test_one_of_two_equal_boxes_is_paired_with_each() -> None:
    twice = Found(np.array([CAT[0]] * 2), np.array([0.9, 0.9]), np.zeros(2, np.int64), 0.0)
    pairs = _pairs(twice, twice)
    assert sorted(pairs[:, 0]) == sorted(pairs[:, 1]) == [0, 1]


@pytest.mark.parametrize("name", [COUNT, BOXES, SCORES, CLASSES])
def test_lists_that_do_not_fit_or_are_not_finite_are_refused(name: str) -> None:
    whole = lists([CAT, DOG])
    with pytest.raises(GateError, match=rf"the {name} have shape"):
        compare_detections({**whole, name: np.concatenate([whole[name]] * 2, axis=-1)}, whole, least_score=0.2)
    for given, other in itertools.permutations([whole, {**whole, SCORES: np.full_like(whole[SCORES], np.nan)}], 2):
        with pytest.raises(GateError, match=r"detection_scores are not all finite"):
            compare_detections(given, other, least_score=0.2)
