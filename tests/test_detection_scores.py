"""AP: equal to the reference's, indifferent to the order of detections, with a standard error that is about right."""

import contextlib
import io
import warnings
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.core.errors import GateError, UserError
from pipeline.tasks.detection import uncertainty
from pipeline.tasks.detection.evaluation import Evaluation, evaluate
from pipeline.tasks.detection.instances import Detected, GroundTruth, detected, ground_truth
from pipeline.tasks.detection.matching import match
from pipeline.tasks.detection.operating_point import best_f1
from pipeline.tasks.detection.uncertainty import ap_without_groups, jackknife_error, weighted_ap
from tests.detection_scenes import Scenes, make_scenes

SCENES = make_scenes(150, num_classes=6)
EXACT = 1e-12


def arrays(scenes: Scenes) -> tuple[Detected, GroundTruth]:
    return detected(scenes.outputs, scenes.truth), ground_truth(scenes.truth)


def evaluated(scenes: Scenes) -> Evaluation:
    return evaluate(*arrays(scenes), len(scenes.class_names))


def by_pycocotools(scenes: Scenes) -> COCOeval:
    """Return the evaluation by pycocotools, of lists that are made from the raw arrays here."""
    outputs, truth, number = scenes.outputs, scenes.truth, len(scenes.class_names)
    images = np.repeat(np.arange(len(truth["sizes"])), np.diff(truth["offsets"]))
    boxes = truth["boxes"].astype(np.float64) / truth["scales"][images, None]
    rows: list[dict[str, Any]] = [
        {
            "id": i + 1,
            "image_id": int(image),
            "category_id": int(kind),
            "bbox": xywh(box),
            "area": float(area),
            "iscrowd": int(ignored),
        }
        for i, (image, kind, box, area, ignored) in enumerate(
            zip(images, truth["classes"], boxes, truth["areas"], truth["ignored"], strict=True)
        )
    ]
    found = []
    for image, ((height, width), scale) in enumerate(zip(truth["sizes"], truth["scales"], strict=True)):
        for place in range(outputs["num_detections"][image, 0]):
            box = np.clip(outputs["detection_boxes"][image, place].astype(np.float64) / scale, 0, [width, height] * 2)
            kind, score = outputs["detection_classes"][image, place], outputs["detection_scores"][image, place]
            found.append({"image_id": image, "category_id": int(kind), "bbox": xywh(box), "score": float(score)})
    found.sort(key=lambda row: (row["image_id"], -row["score"], row["category_id"], row["bbox"]))
    coco = COCO()
    coco.dataset = {
        "info": {},
        "images": [{"id": i} for i in range(len(truth["sizes"]))],
        "categories": [{"id": i} for i in range(number)],
        "annotations": rows,
    }
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def xywh(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = box.tolist()
    return [x1, y1, x2 - x1, y2 - y1]


@pytest.mark.parametrize(
    "scenes",
    [
        SCENES,
        make_scenes(60, num_classes=2, seed=1, objects=30, noise=150, crowds=0.2),
        make_scenes(40, num_classes=9, seed=2, objects=0.7, noise=3),
    ],
    ids=["usual", "more than 100 of a class on an image", "classes without objects"],
)
def test_the_figures_are_those_of_pycocotools(scenes: Scenes) -> None:
    expected, found = by_pycocotools(scenes), evaluated(scenes)
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", None, None, "ar100")
    wanted = {name: value for name, value in zip(names, expected.stats, strict=False) if name and value >= 0}
    assert found.scores() == pytest.approx(wanted, abs=EXACT)
    assert 0.05 < found.scores()["ap"] < 0.9
    precision = np.where(expected.eval["precision"] < 0, np.nan, expected.eval["precision"])[..., -1]
    np.testing.assert_allclose(found.precision, precision, atol=EXACT, rtol=0)
    ap, ap50 = found.by_class()
    np.testing.assert_allclose(ap, precision[..., 0].mean(axis=(0, 1)), atol=EXACT)
    np.testing.assert_allclose(ap50, precision[0, ..., 0].mean(axis=0), atol=EXACT)
    np.testing.assert_allclose(found.curve(5), np.nanmean(precision[5, ..., 0], axis=1), atol=EXACT)
    everything = np.ones((1, len(scenes.truth["sizes"])), np.int64)
    np.testing.assert_allclose(weighted_ap(*arrays(scenes), everything), found.scores()["ap"], atol=EXACT, rtol=0)


def test_the_order_in_which_detections_are_listed_changes_nothing() -> None:
    shuffled = {name: array.copy() for name, array in SCENES.outputs.items()}
    random = np.random.default_rng(3)
    for image, count in enumerate(SCENES.outputs["num_detections"][:, 0]):
        order = random.permutation(count)
        for name in ("detection_boxes", "detection_scores", "detection_classes"):
            shuffled[name][image, :count] = SCENES.outputs[name][image, order]
    once, again = evaluated(SCENES), evaluated(SCENES._replace(outputs=shuffled))
    np.testing.assert_array_equal(once.precision, again.precision)
    for name in ("images", "classes", "boxes", "scores"):
        one, other = (getattr(detected(outputs, SCENES.truth), name) for outputs in (SCENES.outputs, shuffled))
        np.testing.assert_array_equal(one, other)


def test_what_lies_beyond_the_edge_of_an_image_is_cut_off() -> None:
    """A perfect box around an object of which the image shows less than half would miss it otherwise."""
    truth = one_object([0, 0, 14, 20], size=(40, 40), scale=0.5)
    outputs = detections([([-16, 0, 14, 20], 0.9)])
    scenes = Scenes(outputs, truth, ["a"])
    assert evaluated(scenes).scores() == {"ap": 1.0, "ap50": 1.0, "ap75": 1.0, "ap_medium": 1.0, "ar100": 1.0}


def one_object(box: list[float], *, size: tuple[int, int], scale: float) -> dict[str, np.ndarray]:
    x1, y1, x2, y2 = box
    return {
        "boxes": np.array([box], np.float32),
        "classes": np.zeros(1, np.int64),
        "offsets": np.array([0, 1]),
        "ignored": np.zeros(1, bool),
        "areas": np.array([(x2 - x1) * (y2 - y1) / scale**2], np.float32),
        "sizes": np.array([size]),
        "scales": np.array([scale]),
    }


def detections(found: list[tuple[list[float], float]]) -> dict[str, np.ndarray]:
    return {
        "num_detections": np.array([[len(found)]], np.int32),
        "detection_boxes": np.array([[box for box, _ in found]], np.float32).reshape(1, -1, 4),
        "detection_scores": np.array([[score for _, score in found]], np.float32).reshape(1, -1),
        "detection_classes": np.zeros((1, len(found)), np.int32),
    }


def test_a_network_that_finds_nothing_scores_nothing() -> None:
    nothing = {**SCENES.outputs, "num_detections": np.zeros_like(SCENES.outputs["num_detections"])}
    assert set(evaluated(SCENES._replace(outputs=nothing)).scores().values()) == {0.0}
    empty = detections([])
    scenes = Scenes(empty, one_object([0, 0, 9, 9], size=(9, 9), scale=1.0), ["a"])
    assert evaluated(scenes).scores()["ap"] == 0.0
    assert jackknife_error(ap_without_groups(*arrays(scenes))) == 0.0


def test_images_without_objects_are_named() -> None:
    truth = {**SCENES.truth, "ignored": np.ones_like(SCENES.truth["ignored"])}
    with pytest.raises(UserError, match=r"no object on any of 150 images counts"):
        evaluated(SCENES._replace(truth=truth))


@pytest.mark.parametrize("name", ["detection_boxes", "detection_scores"])
def test_what_is_not_finite_has_no_score(name: str) -> None:
    outputs = {key: array.copy() for key, array in SCENES.outputs.items()}
    outputs[name][7, 0] = np.nan
    with pytest.raises(GateError, match="not all finite"):
        detected(outputs, SCENES.truth)
    outputs[name][7] = SCENES.outputs[name][7]
    outputs[name][7, int(outputs["num_detections"][7, 0]) :] = np.nan
    detected(outputs, SCENES.truth)  # padding says nothing


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    evaluated(SCENES)
    assert capfd.readouterr() == ("", "")


def test_ap_without_some_images_is_that_of_the_others() -> None:
    found, truth = arrays(SCENES)
    without = ap_without_groups(found, truth, groups=7)
    for group in (0, 4):
        kept = np.flatnonzero(np.arange(len(truth)) % 7 != group)
        assert without[group] == pytest.approx(evaluated(part(SCENES, kept)).scores()["ap"], abs=EXACT)


def part(scenes: Scenes, images: np.ndarray) -> Scenes:
    """Return ``images`` of ``scenes`` alone."""
    truth = scenes.truth
    rows = np.concatenate([np.arange(*truth["offsets"][i : i + 2]) for i in images])
    counts = np.diff(truth["offsets"])[images]
    objects = {name: truth[name][rows] for name in ("boxes", "classes", "ignored", "areas")}
    others = {name: truth[name][images] for name in ("sizes", "scales")}
    offsets = np.concatenate([[0], counts.cumsum()])
    outputs = {name: array[images] for name, array in scenes.outputs.items()}
    return scenes._replace(outputs=outputs, truth={**objects, **others, "offsets": offsets})


@pytest.mark.slow
@pytest.mark.parametrize(("count", "num_classes", "is_difference"), [(60, 3, False), (150, 8, False), (100, 4, True)])
def test_the_standard_error_is_the_spread_over_samples_of_images(
    count: int, num_classes: int, is_difference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are drawn from the same 1,200 images; the spread of their AP must be what each of them tells alone."""
    scenes = make_scenes(1200, num_classes=num_classes, seed=4, objects=4, noise=4)
    networks = [scenes, moved(scenes)] if is_difference else [scenes]
    matched = [(*arrays(one), match(*arrays(one))) for one in networks]
    known = {id(found): matches for found, _, matches in matched}
    monkeypatch.setattr(uncertainty, "match", lambda found, _: known[id(found)])  # the same in every sample

    def figure(weights: np.ndarray) -> np.ndarray:
        scores = [weighted_ap(found, truth, weights) for found, truth, _ in matched]
        return scores[0] - scores[1] if is_difference else scores[0]

    random = np.random.default_rng(5)
    samples = [random.choice(1200, count, replace=False) for _ in range(200)]
    spread = figure(np.array([np.bincount(sample, minlength=1200) for sample in samples])).std()
    groups = min(uncertainty.GROUPS, count)
    told = []
    for sample in samples[:20]:
        group = np.arange(count) % groups
        parts = [np.bincount(sample[group != number], minlength=1200) for number in range(groups)]
        told.append(jackknife_error(figure(np.array(parts))))
    assert np.mean(told) == pytest.approx(spread, rel=0.2)
    assert np.std(told) < 0.3 * spread


def moved(scenes: Scenes, *, pixels: float = 2.0) -> Scenes:
    """Return the same with boxes moved by about so many pixels."""
    jitter = np.random.default_rng(6).normal(0, pixels, scenes.outputs["detection_boxes"].shape)
    boxes = (scenes.outputs["detection_boxes"] + jitter).astype(np.float32)
    return scenes._replace(outputs={**scenes.outputs, "detection_boxes": boxes})


def test_a_difference_on_the_same_images_is_known_better_than_either_score() -> None:
    one, other = (ap_without_groups(*arrays(scenes)) for scenes in (SCENES, moved(SCENES, pixels=0.5)))
    assert 0 < jackknife_error(one - other) < 0.3 * jackknife_error(one)


def test_the_best_f1_is_that_of_all_scores() -> None:
    random = np.random.default_rng(7)
    scores = random.random(300).round(2).astype(np.float32)
    right = random.random(300) < scores
    best = best_f1(scores, right, 200)
    tried = {
        float(score): 2 * right[scores >= score].sum() / ((scores >= score).sum() + 200) for score in np.unique(scores)
    }
    assert best.f1 == pytest.approx(max(tried.values()))
    assert tried[best.score] == pytest.approx(best.f1)
    listed = scores >= best.score
    assert (best.detections, best.precision) == (listed.sum(), right[listed].mean())
    assert best.recall == right[listed].sum() / 200


def test_where_nothing_is_right_there_is_no_best_score() -> None:
    nothing = best_f1(np.zeros(0, np.float32), np.zeros(0, bool), 3)
    assert nothing == best_f1(np.array([0.5], np.float32), np.array([False]), 3) == (1.0, 0, None, 0.0, 0.0)
    assert best_f1(np.zeros(0, np.float32), np.zeros(0, bool), 0) == (1.0, 0, None, None, None)
