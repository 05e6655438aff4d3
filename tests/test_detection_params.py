"""Which parameters detectors and classifiers refuse, each named before anything runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from models.detections import MAX_ROUNDS
from pipeline.core.errors import UserError
from pipeline.data.sources import table
from pipeline.data.sources.table import SOURCES
from pipeline.distillation.settings import DistillStudent
from pipeline.params.schema import Params, load_params
from pipeline.tasks.table import TASKS
from pipeline.training.settings import LearningRate, Training
from stages.probe_environment import main as probe
from tests.helpers import refused
from workbench.project import default_params

WriteParams = Callable[[dict[str, Any]], Path]
SCENES = "scenes"
ON_LOGITS = {"distill_student.transfer": "logits", "distill_student.loss": "dist"}
SMALL_DETECTOR = {"width": 32, "num_convs": 1, "levels": [2, 3], "extra": "pool"}


@pytest.fixture(autouse=True)
def _source_of_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a source whose images are 64 x 64 and hold objects."""
    default_params()  # which is kept, and must not know the source
    entry = replace(SOURCES["digits"], name=SCENES, image_size=64, task="detection")
    monkeypatch.setitem(table.SOURCES._entries, SCENES, entry)


def of_scenes(**changes: Any) -> dict[str, Any]:
    """Return what a detector's parameters differ in from the default ones, with ``changes`` to them."""
    found: dict[str, Any] = {
        "prepare_data.source": SCENES,
        "distill_student.transfer": "features",
        "distill_student.loss": "pkd",
        "distill_student.feature_pairs": None,
        "distill_student.allow_larger": True,
    }
    for section in ("train_teacher", "distill_student"):
        found |= {f"{section}.detector.{name}": value for name, value in SMALL_DETECTOR.items()}
    return found | {key.replace("__", "."): value for key, value in changes.items()}


def run_probe(params: Path, tmp_path: Path) -> Result:
    arguments = ["--params", str(params), "--out", str(tmp_path / "facts.json"), "--code", str(tmp_path / "code.json")]
    return CliRunner().invoke(probe, arguments)


def refusal(params: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_params(params)
    return str(caught.value)


def test_the_parameters_of_a_detector_are_taken(params_file: WriteParams, tmp_path: Path) -> None:
    for method in ("fm_kt", "metric", "metric_meta", "none"):
        params = load_params(params_file(of_scenes(distill_student__method=method)))
        assert params.distill_student.detector.levels == (2, 3)
    free = {"distill_student.method": "none", "distill_student.transfer": "logits", "distill_student.loss": "dist"}
    params = params_file(of_scenes() | free)
    assert load_params(params).distill_student.transfer == "logits", "it means nothing where nothing is transferred"
    result = run_probe(params_file(of_scenes()), tmp_path)
    assert result.exit_code == 0, result.output
    assert run_probe(params_file(of_scenes()), tmp_path).exit_code == 0, "once more, from its own facts"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"distill_student.method": "ofm_kt", **ON_LOGITS},
            "distill_student.method: got ofm_kt",
        ),
        (
            {"distill_student.method": "fm_kt_theta", **ON_LOGITS},
            "distill_student.method: got fm_kt_theta",
        ),
        (
            {"distill_student.method": "fm_kt_theta"},
            "use fm_kt or none or metric or metric_meta, or, of images without boxes, set transfer to logits",
        ),
        (
            ON_LOGITS,
            "distill_student.transfer: got logits, but what a detector transfers are the levels of its pyramid; set",
        ),
        (
            {"distill_student.transfer": "features_and_logits", "distill_student.logit_loss.weight": 1.0},
            "distill_student.transfer: got features_and_logits, but what a detector transfers are the levels",
        ),
        (
            {"distill_student.logit_loss.weight": 0.5},
            "distill_student.logit_loss.weight: got 0.5, but a detector has no logits of an image to compare: its",
        ),
        (
            {"train_teacher.training.augment.mixup_alpha": 0.2},
            "train_teacher.training.augment.mixup_alpha: got 0.2, but",
        ),
        ({"distill_student.training.augment.cutmix_alpha": 1.0}, "cutmix_alpha: got 1.0, but boxes of mixed images"),
        ({"distill_student.training.augment.trivial_augment": True}, "trivial_augment: got true, but its turns"),
        (
            {"distill_student.training.augment.scale_jitter": [0.5, 2.0]},
            "distill_student.training.augment.scale_jitter: got [0.5, 2.0], but images are scaled while",
        ),
        ({"train_teacher.training.label_smoothing": 0.1}, "train_teacher.training.label_smoothing: got 0.1, but"),
        ({"train_teacher.training.class_weights": "balanced"}, "class_weights: got balanced, but a detector's classes"),
        (
            {"train_teacher.weights": "w.pth", "train_teacher.classes": "classes.txt"},
            "train_teacher.classes: got classes.txt, but a detector's outputs are chosen by",
        ),
        (
            {"train_teacher.backbone": "onnx:t.onnx", "train_teacher.training.epochs": 0},
            "train_teacher.backbone: got onnx:t.onnx, but a program shows no feature maps",
        ),
        (
            {"distill_student.detector.kind": "faster_rcnn"},
            "detector.kind: got faster_rcnn, but it can teach, and not be deployed; use fcos or retinanet",
        ),
    ],
)
def test_what_a_detector_cannot_do_is_named(changes: dict[str, Any], line: str, params_file: WriteParams) -> None:
    message = refusal(params_file(of_scenes() | changes))
    assert line in message
    assert len(message.splitlines()) == 1, message


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"train_teacher.detector.width": 64}, "train_teacher.detector.width: got 64, but the images of"),
        ({"distill_student.detector.levels": [2, 3]}, "distill_student.detector.levels: got [2, 3], but the images of"),
        ({"detections.nms": "none"}, "detections.nms: got none, but the images of prepare_data.source have one class"),
        (
            {
                "distill_student.method": "metric_meta",
                "distill_student.transfer": "features",
                "distill_student.loss": "pkd",
            },
            "distill_student.method: got metric_meta, but a classifier has the meta-encoder's layers at its end",
        ),
    ],
)
def test_a_classifier_has_no_settings_of_detectors(
    changes: dict[str, Any], line: str, params_file: WriteParams
) -> None:
    assert line in refusal(params_file(changes))


def test_every_restriction_is_of_a_key_that_there_is() -> None:
    for entry in TASKS.values():
        for restriction in entry.restrictions():
            for key in (restriction.key, *restriction.matters_with):
                value: Any = Params()
                for name in key.split("."):
                    value = getattr(value, name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"distill_student.pair_weights": [1.0, 1.0]}, ["distill_student.pair_weights: got 2 for 3 levels"]),
        (
            {"distill_student.feature_pairs": [[1, 1], [4, 2]]},
            ["distill_student.feature_pairs", "no level 4; its levels: 1 (32"],
        ),
        ({"distill_student.feature_pairs": [[9, 9]]}, ["distill_student.feature_pairs", "has no level 9; its levels"]),
        ({"distill_student.feature_pairs": [[3, 3]]}, ["feature_pairs: got the last level alone, which has no loss"]),
        (
            {"train_teacher.detector.levels": [1, 2, 3]},
            ["feature_pairs: got null", "level after level", "give the pairs"],
        ),
        ({"train_teacher.detector.levels": [3, 4]}, ["train_teacher.backbone", "its stages: 1 ("]),
        (
            {"prepare_data.source": "scenes", "distill_student.detector.width": 48},
            ["distill_student.backbone: detector.width: got 48", "multiple of 32"],
        ),
        ({"distill_student.detector.extra": "p6p7", "train_teacher.detector.extra": "p6p7"}, []),
    ],
)
def test_the_probe_names_pyramids_that_do_not_fit(
    changes: dict[str, Any], words: list[str], params_file: WriteParams, tmp_path: Path
) -> None:
    result = run_probe(params_file(of_scenes() | changes), tmp_path)
    if words:
        refused(result, *words)
    else:
        assert result.exit_code == 0, result.output


def test_images_that_the_strides_do_not_divide_are_named_with_the_next_sizes(
    params_file: WriteParams, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(SOURCES[SCENES], image_size=60)
    monkeypatch.setitem(table.SOURCES._entries, SCENES, entry)
    refused(
        run_probe(params_file(of_scenes()), tmp_path),
        "images of 60 x 60 pixels",
        "prepare_data.image_size, e.g. 56 x 56 or 64 x 64",
    )


def test_weights_of_pairs_are_one_for_each_and_not_all_zero() -> None:
    pairs = ((1, 1), (2, 2))
    for weights, line in (((1.0,), "got 1 for 2 feature_pairs"), ((0.0, 0.0), "by which nothing is transferred")):
        with pytest.raises(ValueError, match=line):
            DistillStudent(transfer="features", loss="pkd", feature_pairs=pairs, pair_weights=weights)
    settings = DistillStudent(transfer="features", loss="pkd", feature_pairs=pairs, pair_weights=(0.0, 2.0))
    assert settings.taught == [1]


def test_losses_of_pairs_are_averaged_or_summed_by_name() -> None:
    settings = DistillStudent(transfer="features", loss="pkd", feature_pairs=((1, 1), (2, 2)))
    found = {name: settings.model_copy(update={"pair_weights": name}) for name in ("mean", "sum", None, (2.0, 0.5))}
    weights = {name: one.weights_of_pairs for name, one in found.items()}
    assert weights == {"mean": None, "sum": (1.0, 1.0), None: None, (2.0, 0.5): (2.0, 0.5)}
    assert all(one.taught == [0, 1] for one in found.values())


def test_a_warmup_may_be_a_fraction_of_an_epoch() -> None:
    assert LearningRate(warmup_epochs=0.1).warmup_epochs == pytest.approx(0.1)
    assert Training(epochs=1, schedule=LearningRate(warmup_epochs=0.5)).epochs == 1
    with pytest.raises(ValueError, match=r"warmup_epochs must be fewer than epochs, got 1\.5 of 1"):
        Training(epochs=1, schedule=LearningRate(warmup_epochs=1.5))


def test_rounds_have_an_end(params_file: WriteParams) -> None:
    """Each is unrolled into the graph."""
    found = refusal(params_file({"detections.rounds": 10**9}))
    assert f"detections.rounds: got {10**9}; give an integer >= 1 and <= {MAX_ROUNDS}" in found


def test_no_more_detections_than_candidates_are_asked_for(params_file: WriteParams) -> None:
    words = "detections: max_detections: got 700, more than the 600 candidates; lower it, or raise candidates"
    found = refusal(params_file({"detections.candidates": 600, "detections.max_detections": 700}))
    assert words.removeprefix("detections: ") in found
    assert "detections" in found
