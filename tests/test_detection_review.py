"""What detections on a split teach: what is wrong with each, tables, galleries, curves, doubts."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.ops import batched_nms

from models.detections import Detections
from pipeline.core.errors import GateError
from pipeline.tasks.base import Review, Row
from pipeline.tasks.detection.evaluation import evaluate
from pipeline.tasks.detection.image_rows import read_rows
from pipeline.tasks.detection.instances import detected, ground_truth
from pipeline.tasks.detection.task import TITLES, Detection
from pipeline.tasks.detection.tiles import MISSED, POOR, RIGHT, WRONG
from tests.detection_scenes import Scenes, make_scenes

TASK = Detection()
CLASSES = ["cat", "dog", "owl"]
CAT, DOG, OWL = range(3)
Box = Sequence[float]
Object = tuple[int, Box]
Found = tuple[int, float, Box]

FAR, NEAR, SHIFTED = [70, 70, 90, 90], [10, 10, 30, 30], [18, 10, 38, 30]
"""``SHIFTED`` overlaps ``NEAR`` by 12 / 28 = 0.43."""
WIDE = [10, 40, 50, 60]


def scene(
    objects: Sequence[Sequence[Object]], found: Sequence[Sequence[Found]], *, ignored: Sequence[int] = ()
) -> Scenes:
    """Return images of 200 x 200 pixels, seen at half their size, with ``objects`` and what is ``found``."""
    flat = [item for own in objects for item in own]
    boxes = np.array([box for _, box in flat], np.float32).reshape(-1, 4)
    truth = {
        "boxes": boxes,
        "classes": np.array([kind for kind, _ in flat], np.int64),
        "offsets": np.cumsum([0, *map(len, objects)]),
        "ignored": np.isin(np.arange(len(flat)), ignored),
        "areas": (4 * (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).astype(np.float32),
        "sizes": np.full((len(objects), 2), 200),
        "scales": np.full(len(objects), 0.5),
    }
    most = max(map(len, found))
    outputs: dict[str, Any] = {
        "num_detections": np.array([[len(own)] for own in found], np.int32),
        "detection_boxes": np.zeros((len(found), most, 4), np.float32),
        "detection_scores": np.zeros((len(found), most), np.float32),
        "detection_classes": np.full((len(found), most), -1, np.int32),
    }
    for image, own in enumerate(found):
        for place, (kind, score, box) in enumerate(own):
            outputs["detection_boxes"][image, place] = box
            outputs["detection_scores"][image, place] = score
            outputs["detection_classes"][image, place] = kind
    return Scenes(outputs, truth, CLASSES)


SCENE = scene(
    objects=[
        [(CAT, NEAR), (DOG, FAR)],
        [(CAT, NEAR), (OWL, FAR)],
        [(DOG, NEAR), (CAT, WIDE)],
        [(CAT, NEAR)],
        [],
    ],
    found=[
        [(CAT, 0.9, NEAR), (DOG, 0.8, FAR), (CAT, 0.7, [11, 10, 31, 30])],  # both right, one twice
        [(DOG, 0.95, NEAR), (OWL, 0.6, FAR)],  # a cat taken for a dog
        [(DOG, 0.85, SHIFTED), (CAT, 0.75, WIDE)],  # a dog poorly placed
        [(CAT, 0.05, FAR)],  # missed; what is found there is not sure enough
        [(OWL, 0.65, NEAR)],  # nothing is there
    ],
)


def make_rows(scenes: Scenes) -> list[Row]:
    names = [f"{number}.png" for number in range(len(scenes.truth["sizes"]))]
    return TASK.image_rows(names, scenes.outputs, scenes.truth, scenes.class_names)


@pytest.fixture
def review() -> Review:
    return TASK.review(make_rows(SCENE), CLASSES)


def test_each_detection_that_is_not_right_says_why(review: Review) -> None:
    found = [(row["file"], row["mistake"], row["truth"], row["prediction"], row["score"]) for row in review.mistakes]
    assert found == [
        ("1.png", "wrong class", "cat", "dog", "0.950000"),
        ("2.png", "poorly placed", "dog", "dog", "0.850000"),
        ("0.png", "found twice", "cat", "cat", "0.700000"),
        ("4.png", "nothing there", "", "owl", "0.650000"),
        ("3.png", "missed", "cat", "", ""),
    ]
    assert [tuple(row) for row in review.mistakes] == [review.mistake_columns] * 5
    overlaps = [row["overlap"] for row in review.mistakes]
    assert overlaps == ["1.0000", f"{12 / 28:.4f}", f"{19 / 21:.4f}", "0.0000", ""]


def test_a_second_class_on_an_object_that_is_found_names_that_object() -> None:
    found = TASK.review(make_rows(scene([[(CAT, NEAR)]], [[(CAT, 0.9, NEAR), (DOG, 0.95, NEAR)]])), CLASSES)
    kinds = [(row["mistake"], row["truth"], row["prediction"], row["overlap"]) for row in found.mistakes]
    assert kinds == [("found twice", "cat", "dog", "1.0000")]
    assert found.confusion.counts[CAT].tolist() == [1, 0, 0, 0], "it is found all the same"
    assert found.confusion.counts[-1, DOG] == 1


def test_boxes_of_mistakes_are_in_pixels_of_the_original(review: Review) -> None:
    boxes = [[float(row[name]) for name in ("x1", "y1", "x2", "y2")] for row in review.mistakes]
    assert boxes[1] == [2 * value for value in SHIFTED]
    assert boxes[4] == [2 * value for value in NEAR], "that of the object that is missed"


def test_galleries_hold_what_is_missed_wrong_and_poorly_placed(review: Review) -> None:
    galleries = {gallery.name: gallery for gallery in review.galleries}
    positions = {name: gallery.positions for name, gallery in galleries.items()}
    assert positions == {"missed": [3], "wrong": [1, 0, 4], "poorly_placed": [2]}
    assert galleries["wrong"].title == "the surest of 3 wrong detections on 5 test images"
    assert review.wrong == [0, 1, 2, 3, 4]
    assert review.least_score == pytest.approx(0.6)
    assert review.summary == (
        "of 7 objects on 5 test images 4 are found and 1 missed; of 8 detections with a score of at least 0.60, that "
        "of the best F1, 1 are poorly placed and 3 wrong"
    )


def test_the_confusion_has_what_is_found_where_nothing_is_and_what_is_missed(review: Review) -> None:
    assert review.confusion.names == ("cat", "dog", "owl", "(background)")
    assert review.confusion.counted == "objects"
    expected = [
        [2, 1, 0, 1],  # cats: two found, one taken for a dog, one missed
        [0, 1, 0, 1],  # dogs: one found, one poorly placed
        [0, 0, 1, 0],
        [1, 1, 1, 0],  # found where nothing is: the second cat, the poorly placed dog, an owl
    ]
    np.testing.assert_array_equal(review.confusion.counts, expected)


def test_figures_of_classes_are_those_of_the_best_f1_of_each(review: Review) -> None:
    found = {row["class"]: row for row in review.classes}
    assert {name: row["objects"] for name, row in found.items()} == {"cat": "4", "dog": "2", "owl": "1"}
    cat = found["cat"]
    assert (cat["from_score"], cat["detections"], cat["precision"], cat["recall"]) == (
        "0.7500",
        "2",
        "1.0000",
        "0.5000",
    )
    assert [CLASSES[i] for i in review.worst_first] == sorted(CLASSES, key=lambda name: float(found[name]["ap"]))
    known, seen = ground_truth(SCENE.truth), detected(SCENE.outputs, SCENE.truth)
    ap, ap50 = evaluate(seen, known, 3).by_class()
    assert [row["ap"] for row in review.classes] == [f"{value:.4f}" for value in ap]
    assert [row["ap50"] for row in review.classes] == [f"{value:.4f}" for value in ap50]


def test_a_class_without_objects_has_no_figures() -> None:
    known = scene([[(CAT, NEAR)]], [[(CAT, 0.9, NEAR), (DOG, 0.8, FAR)]])
    dog, owl = TASK.review(make_rows(known), CLASSES).classes[1:]
    assert (dog["objects"], dog["ap"], dog["recall"], dog["f1"]) == ("0", "", "", "")
    assert (owl["objects"], owl["ap"], owl["precision"]) == ("0", "", "")


def test_what_is_found_on_ignored_objects_is_neither_right_nor_wrong() -> None:
    """Two detections lie inside of a crowd; both are as good as not there."""
    crowd = scene(
        [[(CAT, FAR), (CAT, [0, 0, 60, 60])]],
        [[(CAT, 0.9, FAR), (CAT, 0.8, NEAR), (CAT, 0.7, [30, 30, 50, 50])]],
        ignored=[1],
    )
    found = TASK.review(make_rows(crowd), CLASSES)
    assert found.mistakes == []
    assert found.wrong == []
    assert found.confusion.counts.sum() == found.confusion.counts[CAT, CAT] == 1
    assert found.classes[CAT]["objects"] == "1"


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_wrong_adds_up(seed: int) -> None:
    scenes = make_scenes(60, num_classes=4, seed=seed)
    found = TASK.review(make_rows(scenes), scenes.class_names)
    counted = ~scenes.truth["ignored"]
    kinds = Counter(row["mistake"] for row in found.mistakes)
    assert set(kinds) == {"wrong class", "poorly placed", "found twice", "nothing there", "missed"}
    counts, background = found.confusion.counts, 4
    assert counts[:background].sum() == counted.sum(), "each object stands once in its row"
    assert counts[background].sum() == kinds["poorly placed"] + kinds["found twice"] + kinds["nothing there"]
    assert counts[:, background].sum() == kinds["missed"] + kinds["poorly placed"]
    off_diagonal = counts[:background, :background].sum() - counts[:background, :background].diagonal().sum()
    assert off_diagonal == kinds["wrong class"]
    sure = [float(row["score"]) for row in found.mistakes if row["score"]]
    assert sure == sorted(sure, reverse=True)
    assert min(sure) >= found.least_score
    assert {row["file"] for row in found.mistakes} == {f"{image}.png" for image in found.wrong}


def test_rows_hold_what_they_are_made_of_to_the_bit() -> None:
    """Through a CSV file."""
    scenes = make_scenes(20, seed=3)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, TASK.image_columns)
    writer.writeheader()
    writer.writerows(make_rows(scenes))
    file.seek(0)
    outputs, truth = read_rows([*csv.DictReader(file)], scenes.class_names)
    assert set(truth) == set(TASK.truth_names)
    for name, array in truth.items():
        np.testing.assert_array_equal(array, scenes.truth[name], strict=True)
    listed = outputs["detection_scores"].shape[1]
    for name, array in outputs.items():
        expected = scenes.outputs[name]
        np.testing.assert_array_equal(array, expected[:, :listed] if expected.shape[1] > 1 else expected, strict=True)
    found = TASK.review(make_rows(scenes), scenes.class_names)
    curve = [point.precision for point in found.precision_recall if point.curve == "IoU 0.5"]
    assert len(curve) == 101
    assert np.mean(curve) == pytest.approx(TASK.score(scenes.outputs, scenes.truth)["ap50"])
    assert {point.curve for point in found.precision_recall} == {"IoU 0.5", "IoU 0.75"}


def colors(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(color) for color in np.unique(pixels.reshape(-1, 3), axis=0).tolist()}


def test_tiles_show_each_box_in_the_colour_of_what_it_is(review: Review) -> None:
    gray = np.full((128, 100, 3), 114, np.uint8)  # the lower part is padding
    expected = [{RIGHT, WRONG}, {RIGHT, WRONG}, {RIGHT, POOR}, {MISSED}, {WRONG}]
    for row, kinds in zip(make_rows(SCENE), expected, strict=True):
        tile = TASK.tile(gray, row, review)
        assert colors(tile.pixels) - {(114, 114, 114)} == kinds
        assert tile.pixels.shape == (400, 400, 3), "a small image is enlarged, without its padding"
        assert tile.lines[0] == row["file"]
        assert not tile.is_right
    found = TASK.tile(gray, make_rows(SCENE)[0], review)
    left, top = (4 * value for value in NEAR[:2])
    assert tuple(found.pixels[top, left + 40]) == RIGHT
    assert tuple(found.pixels[top - 1, left + 40]) == (114, 114, 114)
    assert found.lines[1:] == ("2 right, 1 wrong", "0 missed, 0 misplaced")
    only = scene([[(CAT, NEAR)]], [[(CAT, 0.9, NEAR)]])
    assert TASK.tile(gray, make_rows(only)[0], review).is_right
    missed = TASK.tile(gray, make_rows(SCENE)[3], review).pixels
    edge = [tuple(pixel) == MISSED for pixel in missed[top, left : 4 * NEAR[2]]]
    assert 0 < sum(edge) < len(edge), "a dashed line"


def doubted(objects: Sequence[Sequence[Object]], found: Sequence[Sequence[Found]]) -> list[str]:
    scenes = scene(objects, found)
    return TASK.doubts(scenes.outputs, scenes.truth, CLASSES)


def test_doubts_name_detections_that_have_nothing_to_do_with_the_images() -> None:
    objects = [[(CAT, NEAR)], [(DOG, FAR)]]
    assert doubted(objects, [[], []]) == ["finds nothing on any of 2 images"]
    (none,) = doubted(objects, [[(CAT, 0.9, FAR)], [(DOG, 0.9, NEAR)]])
    assert none == "finds none of 2 objects on 2 images: no box overlaps one of its class by half"
    assert doubted(objects, [[(CAT, 0.9, NEAR)], [(CAT, 0.9, FAR)]]) == ["finds nothing but 'cat' on 2 images"]
    assert doubted(objects, [[(CAT, 0.9, NEAR)], [(DOG, 0.9, NEAR)]]) == []
    assert doubted([[(CAT, NEAR)], [(CAT, FAR)]], [[(CAT, 0.9, NEAR)], []]) == [], "there is no other class"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offsets": np.array([0, 2, 4])}, r"offsets have the shape \[3\], expected \[6\]"),
        ({"offsets": np.array([0, 4, 2, 6, 7, 7])}, "offsets do not rise from 0"),
        ({"offsets": np.array([0, 2, 4, 6, 7, 8])}, r"boxes have the shape \[7, 4\], expected \[8, 4\]"),
        ({"classes": np.array([0, 1, 0, 2, 1, 3, 0])}, "classes hold 3, expected 0 to 2"),
        ({"classes": np.zeros(7)}, "classes are float64"),
        ({"boxes": SCENE.truth["boxes"][:, ::-1].copy()}, "boxes are not x1 y1 x2 y2"),
        ({"boxes": np.full((7, 4), np.nan, np.float32)}, "boxes are not x1 y1 x2 y2"),
        ({"scales": np.array([0.5, 0.5, 0, 0.5, 0.5])}, "scales are not all above 0"),
        ({"sizes": np.full((5, 3), 9)}, r"sizes have the shape \[5, 3\], expected \[5, 2\]"),
    ],
)
def test_truth_that_cannot_be_is_named(change: Mapping[str, np.ndarray], said: str) -> None:
    TASK.require_truth(SCENE.truth, 5, CLASSES)
    with pytest.raises(ValueError, match=said):
        TASK.require_truth({**SCENE.truth, **change}, 5, CLASSES)


def test_a_drop_is_measured_by_the_error_of_the_difference() -> None:
    scenes = make_scenes(80, seed=4, crowds=0)
    worse = {**scenes.outputs, "detection_boxes": scenes.outputs["detection_boxes"] * np.float32(1.02)}
    found = TASK.change(worse, scenes.outputs, scenes.truth, allowed=0.001)
    assert found.reference == TASK.score(scenes.outputs, scenes.truth)["ap"]
    assert found.drop == found.reference - found.score > 0.01
    assert found.standard_errors_above > 2
    assert found.counted.startswith("80 images, the difference has a standard error of ")
    assert TASK.change(worse, scenes.outputs, scenes.truth, allowed=0.9).standard_errors_above == 0
    same = TASK.change(scenes.outputs, scenes.outputs, scenes.truth, allowed=0.0)
    assert (same.drop, same.standard_errors_above) == (0, 0)


def raw_outputs(count: int, places: int, num_classes: int, *, side: float) -> dict[str, np.ndarray]:
    """Return crowded boxes and scores of all places."""
    random = np.random.default_rng(8)
    start = random.uniform(0, side, (count, places, 2))
    boxes = np.concatenate([start, start + random.uniform(10, 40, (count, places, 2))], axis=2)
    return {
        "boxes": boxes.astype(np.float32),
        "scores": random.beta(1, 4, (count, places, num_classes)).astype(np.float32),
    }


RAW = Detection(
    Detections(score_threshold=0.3, iou_threshold=0.5, candidates=400, rounds=12, max_detections=30, nms="none")
)


def test_suppression_here_is_that_of_torchvision() -> None:
    outputs = raw_outputs(6, 120, 3, side=150)
    found = RAW.listed(outputs)
    for image in range(6):
        scores, boxes = (torch.from_numpy(outputs[name][image]) for name in ("scores", "boxes"))
        places, classes = torch.nonzero(scores > 0.3, as_tuple=True)
        kept = batched_nms(boxes[places], scores[places, classes], classes, 0.5)[:30]
        number = len(kept)
        assert 10 < number == found["num_detections"][image, 0]
        np.testing.assert_array_equal(found["detection_boxes"][image, :number], boxes[places[kept]])
        np.testing.assert_array_equal(found["detection_scores"][image, :number], scores[places, classes][kept])
        np.testing.assert_array_equal(found["detection_classes"][image, :number], classes[kept])
        assert (found["detection_classes"][image, number:] == -1).all()


def test_outputs_of_all_places_are_scored_and_shown_like_detections() -> None:
    outputs = raw_outputs(5, 60, 3, side=60)
    listed = RAW.listed(outputs)
    assert RAW.score(outputs, SCENE.truth) == TASK.score(listed, SCENE.truth)
    names = ["a", "b", "c", "d", "e"]
    assert RAW.image_rows(names, outputs, SCENE.truth, CLASSES) == TASK.image_rows(names, listed, SCENE.truth, CLASSES)
    assert (RAW.least_score, TASK.least_score) == (0.0, 0.0)
    outputs["scores"][3, 7] = np.nan
    with pytest.raises(GateError, match="not all finite"):
        RAW.score(outputs, SCENE.truth)


def test_thresholds_that_settings_leave_open_are_those_of_the_detector() -> None:
    found = TASK.configured(Detections(iou_threshold=0.7), {"detector": "fcos"}).detections
    assert (found.score_threshold, found.iou_threshold) == (0.2, 0.7)
    assert TASK.configured(Detections(), {}).detections.score_threshold is None
    assert TASK.configured(Detections(candidates=2000), {}).batch_size < TASK.batch_size


def test_the_signature_is_four_outputs_of_fixed_size() -> None:
    signature = TASK.configured(Detections(max_detections=7), {}).signature(
        image_size=(64, 96), input_dtype="uint8", class_names=CLASSES
    )
    assert [(output.name, output.dtype, output.shape) for output in signature.outputs] == [
        ("num_detections", "int32", (1,)),
        ("detection_boxes", "float32", (7, 4)),
        ("detection_scores", "float32", (7,)),
        ("detection_classes", "int32", (7,)),
    ]


def test_a_network_that_drops_nothing_has_an_output_for_each_place() -> None:
    network = {
        "backbone": "resnet8",
        "num_classes": 3,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "image_size": [64, 64],
        "detector": "fcos",
        "width": 32,
        "num_convs": 1,
        "levels": [2, 3],
        "extra": "pool",
        "widths": [1, 2],  # of something that is built around the detector
    }
    task = TASK.configured(Detections(nms="none"), network)
    boxes, scores = task.signature(image_size=(64, 64), input_dtype="float32", class_names=CLASSES).outputs
    places = 32 * 32 + 16 * 16 + 8 * 8
    assert (boxes.name, boxes.shape, scores.name, scores.shape) == ("boxes", (places, 4), "scores", (places, 3))


def test_a_card_says_what_there_is() -> None:
    many = make_scenes(60)
    assert {"ap", *TITLES} == set(TASK.score(many.outputs, many.truth))
    scores = TASK.score(SCENE.outputs, SCENE.truth)
    assert TASK.card_rows(scores)[0] == ("AP at IoU 0.50", f"{scores['ap50']:.2%}")
    assert "AP of large objects" not in dict(TASK.card_rows(scores)), "there are none"
