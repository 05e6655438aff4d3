"""A package of detections in the hands of its consumer: boxes in the pixels of the user's images, drawn, verified."""

import csv
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.data.decoding import Resize
from pipeline.data.letterbox import PADDING
from pipeline.data.reading import Fit, read_image
from pipeline.package.build_engine import plan_engine
from pipeline.package.pictures import ImageFile, Picture, read_picture
from pipeline.package.reader import Package
from pipeline.package.writer import write_sums
from pipeline.runtimes.base import to_input
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Placement
from stages.__main__ import main
from tests.detection_package import (
    BOXES,
    CLASSES,
    COUNT,
    DETECTIONS,
    HEIGHT,
    NUMBERS,
    OUTPUTS,
    TASK,
    WIDTH,
    make_package,
    make_package_without_nms,
)
from tests.helpers import ROOT, make_archive, refused, said_on_a_terminal

ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_package(tmp_path_factory.mktemp("detection") / "package", more=("fp16",))


@pytest.fixture
def package(made: Path, tmp_path: Path) -> Path:
    """Return a copy of the package, to be spoilt."""
    return shutil.copytree(made, tmp_path / "package")


def run(command: str, package: Path, *words: object) -> Result:
    return CliRunner().invoke(main, [command, "--package", str(package), *map(str, words)])


def photo(path: Path, size: tuple[int, int], orientation: int = 1, level: int = 255) -> Path:
    """Write an image of ``size`` (width, height) as it is stored, and how a camera says that it was held."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path, exif=exif)
    return path


def expected_boxes(size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Return the boxes on an image of ``size`` (width, height): divided by the scale, cut at the edges."""
    width, height = size
    scale = min(WIDTH / width, HEIGHT / height)
    return np.clip(BOXES[:COUNT].astype(float) / scale, 0, [width, height, width, height]).round(2)


@pytest.mark.parametrize(
    ("stored", "orientation", "shown"),
    [
        ((192, 128), 1, (192, 128)),
        ((300, 100), 1, (300, 100)),
        ((50, 200), 1, (50, 200)),
        ((10, 7), 1, (10, 7)),
        ((300, 100), 6, (100, 300)),
        ((300, 100), 3, (300, 100)),
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_boxes_are_those_of_the_image_as_it_is_shown(
    kind: str, stored: tuple[int, int], orientation: int, shown: tuple[int, int], made: Path, tmp_path: Path
) -> None:
    path = photo(tmp_path / f"photo.{kind}", stored, orientation)
    found = json.loads(run("predict", made, "--json", path).stdout)
    assert (found["image"], found["width"], found["height"]) == (str(path), *shown)
    things = found["detections"]
    np.testing.assert_allclose([thing["box"] for thing in things], expected_boxes(shown))
    numbers = NUMBERS[:COUNT]
    assert [thing["class"] for thing in things] == [CLASSES.names[i] for i in numbers]
    assert CLASSES.ids is not None
    assert [thing["category_id"] for thing in things] == [CLASSES.ids[i] for i in numbers]


@pytest.mark.parametrize(("kind", "size"), [("png", (41, 90)), ("jpg", (2560, 2000))])
def test_the_network_is_given_the_image_as_training_reads_it(
    kind: str, size: tuple[int, int], made: Path, tmp_path: Path
) -> None:
    """A large JPEG file is decoded at a reduced scale, here and there."""
    pixels = np.random.default_rng(0).integers(128, 256, (size[1], size[0], 3), dtype=np.uint8)
    path = tmp_path / f"photo.{kind}"
    Image.fromarray(pixels).save(path)
    taken = read_image("photo", path, Fit((HEIGHT, WIDTH), how=TASK.resize)).transpose(2, 0, 1)[None]
    assert (taken[:, :, -1, -1] == PADDING).all()
    right = OnnxRuntime(made / "model.onnx").infer(to_input(taken, "float32"))["detection_scores"][0]
    things = json.loads(run("predict", made, "--json", path).stdout)["detections"]
    assert [thing["score"] for thing in things] == [round(float(score), 6) for score in right[:COUNT]]
    np.testing.assert_allclose([thing["box"] for thing in things], expected_boxes(size))


@pytest.mark.parametrize(("resize", "scale"), [("letterbox", 32 / 300), ("central_square", 64 / 100)])
def test_what_is_known_of_an_image_beside_its_pixels(resize: Resize, scale: float, tmp_path: Path) -> None:
    path = photo(tmp_path / "photo.png", (300, 100), 6)
    picture = read_picture(ImageFile("my photo", path), (32, 64), resize=resize)
    assert isinstance(picture, Picture)
    assert picture.pixels.shape == (3, 32, 64)
    assert picture.placement == Placement("my photo", (300, 100), scale)


def test_classes_without_ids_have_none(package: Path, tmp_path: Path) -> None:
    (package / "labels.json").write_text(json.dumps({"labels": CLASSES.names}))
    write_sums(package)
    path, table = photo(tmp_path / "photo.png", (96, 64)), tmp_path / "found.csv"
    done = run("predict", package, path, "--out", table, "--draw", tmp_path / "drawn")
    assert done.exit_code == 0, done.output
    with table.open(newline="") as file:
        assert {row["category_id"] for row in csv.DictReader(file)} == {""}
    assert drawn_files(tmp_path / "drawn") == ["photo.png"]


def test_text_and_table_say_the_same(made: Path, tmp_path: Path) -> None:
    path, table = photo(tmp_path / "photo.png", (192, 128)), tmp_path / "found.csv"
    assert run("predict", made, path).stdout == (
        f"{path}: traffic light 100.00% at 20, 40, 80, 100; cat 75.00% at 0, 0, 192, 128; "
        "dog 50.00% at 101, 8, 180, 120\n"
    )
    assert run("predict", made, path, "--top", "1").stdout == f"{path}: traffic light 100.00% at 20, 40, 80, 100\n"
    assert run("predict", made, path, "--out", table).exit_code == 0
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "class", "category_id", "score", "x1", "y1", "x2", "y2"]
    assert list(rows[2].values()) == [str(path), "dog", "18", "0.5", "101", "8", "180", "120.5"]
    assert len(rows) == COUNT


def test_a_terminal_shows_a_line_for_each_box(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, dark = photo(tmp_path / "photo.png", (192, 128)), photo(tmp_path / "dark.png", (96, 64), level=20)
    on_a_terminal = functools.partial(said_on_a_terminal, monkeypatch, "predict", "--package", made)
    assert on_a_terminal(path, dark).splitlines() == [
        f"{path}:",
        "  traffic light  100.00%  at   20,  40,   80,  100",
        "  cat             75.00%  at    0,   0,  192,  128",
        "  dog             50.00%  at  101,   8,  180,  120",
        f"{dark}: nothing",
    ]
    assert on_a_terminal("--top", 1, path) == f"{path}: traffic light 100.00% at 20, 40, 80, 100\n"
    (line,) = on_a_terminal("--json", path).splitlines()
    assert len(json.loads(line)["detections"]) == COUNT


def test_a_score_may_be_asked_for_above_what_the_files_leave_out(made: Path, tmp_path: Path) -> None:
    path, table = photo(tmp_path / "photo.png", (96, 64)), tmp_path / "found.csv"
    assert len(json.loads(run("predict", made, "--json", "--min-score", "0.75", path).stdout)["detections"]) == 2
    dark = photo(tmp_path / "dark.png", (96, 64), level=20)
    assert run("predict", made, dark).stdout == f"{dark}: nothing\n"
    done = run("predict", made, dark, path, "--out", table)
    assert done.stderr.endswith(f"2 of 2 images answered, in {table}; 1 show nothing and have no row\n")
    said = "--min-score: got 0.05, but the package's files leave out what scores below 0.1; give 0.1 or more"
    refused(run("predict", made, "--min-score", "0.05", path), said)


def test_all_places_are_thinned_out_here_and_nothing_was_left_out_of_them(tmp_path: Path) -> None:
    package, path = make_package_without_nms(tmp_path / "package"), photo(tmp_path / "photo.png", (192, 128))
    things = json.loads(run("predict", package, "--json", path).stdout)["detections"]
    assert [(thing["class"], thing["score"]) for thing in things] == [("traffic light", 1), ("cat", 0.75), ("dog", 0.5)]
    np.testing.assert_allclose([thing["box"] for thing in things], expected_boxes((192, 128)))
    more = json.loads(run("predict", package, "--json", "--min-score", "0.03", path).stdout)["detections"]
    assert [thing["score"] for thing in more] == pytest.approx([1, 0.75, 0.5, 0.05, 0.05])


def drawn_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_boxes_are_drawn_on_copies(made: Path, tmp_path: Path) -> None:
    path = photo(tmp_path / "in/held.jpg", (300, 450), 6, level=128)
    before = path.read_bytes()
    done = run("predict", made, "--draw", tmp_path / "out", path)
    assert done.exit_code == 0, done.output
    assert path.read_bytes() == before
    with Image.open(tmp_path / "out/held.jpg") as opened:
        drawn = np.asarray(opened.convert("RGB")).astype(int)
    assert drawn.shape == (300, 450, 3), "turned as it was read"
    x1, y1, x2, y2 = expected_boxes((450, 300))[2].astype(int)
    colored = np.abs(drawn - 128).max(axis=2) > 30
    for row, column in ((slice(y1, y2), x1), (slice(y1, y2), x2), (y1, slice(x1, x2)), (y2, slice(x1, x2))):
        assert colored[row, column].mean() > 0.9
    assert not colored[y1 + 30 : y2 - 10, x2 - 40 : x2 - 10].any()


def test_folders_archives_and_equal_names_are_drawn_apart(made: Path, tmp_path: Path) -> None:
    album = tmp_path / "album"
    for name in ("1.png", "inner/2.webp", "inner/3.JPG"):
        photo(album / name, (40, 30))
    photo(tmp_path / "other/1.png", (40, 30))
    archive = make_archive(album, "zip")
    words = ["--draw", tmp_path / "out", album, archive, album / "1.png", tmp_path / "other/1.png", album / "1.png"]
    done = run("predict", made, *words)
    assert done.exit_code == 0, done.output
    names = ["1.png", "inner/2.webp.png", "inner/3.JPG"]
    assert drawn_files(tmp_path / "out") == sorted(
        ["1-2.png", "1.png", *(f"{home}/{name}" for home in ("album", "images.zip") for name in names)]
    )


def test_nothing_is_overwritten_by_what_is_drawn(made: Path, tmp_path: Path) -> None:
    path = photo(tmp_path / "album/1.png", (40, 30))
    before = path.read_bytes()
    for folder in (path.parent, path):
        said = f"--draw: {folder} is no empty folder; give a new one, so that no image is lost"
        refused(run("predict", made, "--draw", folder, path), said)
    assert path.read_bytes() == before
    assert drawn_files(path.parent) == ["1.png"]


def test_what_cannot_be_read_is_named_and_the_rest_is_drawn(made: Path, tmp_path: Path) -> None:
    good, bad = photo(tmp_path / "good.png", (40, 30)), tmp_path / "bad.png"
    bad.write_bytes(good.read_bytes()[:60])
    done = run("predict", made, "--draw", tmp_path / "out", bad, good)
    assert done.exit_code == 1
    assert f"error: {bad}: damaged or truncated image" in done.stderr
    assert drawn_files(tmp_path / "out") == ["good.png"]


@pytest.mark.parametrize(("option", "value"), [("--draw", "out"), ("--min-score", "0.5")])
def test_a_task_without_boxes_refuses_their_options(option: str, value: str, tmp_path: Path) -> None:
    path = photo(tmp_path / "photo.png", (8, 8))
    old = ROOT / "tests/packages/v0_1"
    refused(run("predict", old, option, value, path), f"{option}: ", "the task classification", "leave it out")


def test_a_whole_package_is_verified_and_timed(made: Path) -> None:
    done = run("verify", made)
    assert done.exit_code == 0, done.output
    assert len(re.findall(r"^model\S*\.onnx .*right$", done.output, re.MULTILINE)) == 2
    done = run("benchmark", made, "--iterations", "10", "--warmup", "1", "--batch", "2")
    assert done.exit_code == 0, done.output
    assert [line.split(",")[0] for line in done.stdout.splitlines()[2:4]] == ["fp32", "fp16"]


def test_an_open_package_says_what_it_holds(made: Path) -> None:
    package = Package.open(made)
    assert (package.task.name, package.image_size, package.classes) == ("detection", (HEIGHT, WIDTH), CLASSES)
    assert package.signature.output_names == OUTPUTS
    assert package.task.least_score == DETECTIONS["score_threshold"]
    preprocessing = json.loads((made / "preprocessing.json").read_text())
    assert (preprocessing["resize"], preprocessing["padding"]) == ("letterbox", 114)
    assert preprocessing["image_size"] == [HEIGHT, WIDTH]
    assert "output" not in preprocessing
    labels = json.loads((made / "labels.json").read_text())
    assert labels == {"labels": list(CLASSES.names), "category_ids": [17, 18, 10]}


def test_an_engine_has_all_outputs(made: Path) -> None:
    plan = plan_engine(Package.open(made), "fp16", {})
    assert plan.signature.output_names == OUTPUTS
    refused(run("build-engine", made), "no engine can be built here")


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("labels.json", lambda content: content.update(category_ids=[17, 18]), "category_ids: one of its own"),
        ("labels.json", lambda content: content.update(category_ids=[17, 18, 17]), "category_ids: one of its own"),
        ("labels.json", lambda content: content.update(category_ids=[17, 18, "x"]), "category_ids.2: got 'x'"),
        ("labels.json", lambda content: content.update(category_ids=[1, 0, True]), "category_ids.2: got True"),
        ("preprocessing.json", lambda content: content.update(resize="central_square"), "resize is 'central_square'"),
        ("preprocessing.json", lambda content: content.update(padding=0), "padding is 0, expected 114"),
        ("preprocessing.json", lambda content: content.pop("scale"), "scale is None, expected 'min("),
        ("preprocessing.json", lambda content: content.update(image_size=[64, 64]), "image_size is [64, 64]"),
        ("manifest.json", lambda content: content.pop("detections"), "has no detections"),
        ("manifest.json", lambda content: content["detections"].update(score_threshold="x"), "score_threshold"),
        ("manifest.json", lambda content: content["detections"].update(score_threshold=None), "are numbers"),
        ("manifest.json", lambda content: content["detections"].pop("rounds"), "detections is {"),
        ("manifest.json", lambda content: content["detections"].update(nms="none"), "(places, 4)"),
        ("manifest.json", lambda content: content["boxes"].update(format="xywh"), "boxes is {"),
        ("manifest.json", lambda content: content["boxes"].update(class_base=1), "boxes is {"),
        ("manifest.json", lambda content: content.pop("task"), "of classification with 3 classes"),
        ("manifest.json", lambda content: content.update(image_size=[-64, 96]), "image_size.0: got -64"),
        ("manifest.json", lambda content: content.update(input="uint8"), "input is 'uint8'"),
        ("manifest.json", lambda content: content.update(name=None), "name: got None, expected a text"),
        ("manifest.json", lambda content: content["signature"]["outputs"][1].update(name="box"), "box float32 [5, 4]"),
        ("manifest.json", lambda content: content["signature"]["outputs"][1].update(shape=["batch", 5, 5]), "[5, 5]"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    file: str, change: Callable[[Any], Any], said: str, package: Path
) -> None:
    content = json.loads((package / file).read_text())
    change(content)
    (package / file).write_text(json.dumps(content))
    write_sums(package)
    refused(run("predict", package, "x.png"), f"{package / file}: ", said, "fetch the package again")


def test_a_signature_that_is_not_the_files_is_refused(package: Path) -> None:
    content = json.loads((package / "manifest.json").read_text())
    content["detections"]["max_detections"] = 6
    for output in content["signature"]["outputs"][1:]:
        output["shape"][1] = 6
    (package / "manifest.json").write_text(json.dumps(content))
    write_sums(package)
    said = "a black image gives detection_boxes float32 [1, 5, 4], expected finite float32 [1, 6, 4]"
    refused(run("verify", package), "model.onnx: ", said)


@pytest.mark.parametrize("command", ["verify", "predict"])
def test_a_class_without_a_name_is_refused(command: str, package: Path, tmp_path: Path) -> None:
    (package / "labels.json").write_text(json.dumps({"labels": ["cat", "dog"]}))
    write_sums(package)
    words = [photo(tmp_path / "photo.png", (96, 64))] if command == "predict" else []
    said = "a detection is of class 2, and there are 2 names", "fetch the package again"
    refused(run(command, package, *words), *said)


def test_without_nms_names_and_thresholds_are_compared_too(tmp_path: Path) -> None:
    package = make_package_without_nms(tmp_path / "package")
    labels, manifest = (package / name for name in ("labels.json", "manifest.json"))
    before = labels.read_text()
    labels.write_text(json.dumps({"labels": ["cat", "dog"]}))
    write_sums(package)
    refused(run("predict", package, "x.png"), "manifest.json: ", "scores (places, 2)")
    labels.write_text(before)
    content = json.loads(manifest.read_text())
    content["detections"]["iou_threshold"] = None
    manifest.write_text(json.dumps(content))
    write_sums(package)
    refused(run("predict", package, "x.png"), "manifest.json: ", "iou_threshold of a finished file are numbers")


def test_damaged_preprocessing_is_named(package: Path) -> None:
    (package / "preprocessing.json").write_text("{}")
    refused(run("predict", package, "x.png"), "preprocessing.json: differs from its SHA-256")


WITHOUT_TORCH = """
import sys
sys.modules["torch"] = sys.modules["torchvision"] = sys.modules["matplotlib"] = sys.modules["faster_coco_eval"] = None
from stages.__main__ import main

words = ["--iterations", "10", "--warmup", "1"]
for command, options in (("verify", []), ("predict", sys.argv[2:]), ("benchmark", words), ("build-engine", [])):
    try:
        main([command, "--package", sys.argv[1], *options])
    except SystemExit as end:
        print("code:", command, end.code)
"""


def test_the_device_needs_neither_pytorch_nor_what_evaluates(made: Path, tmp_path: Path) -> None:
    words = [str(made), str(photo(tmp_path / "photo.png", (96, 64))), "--draw", str(tmp_path / "drawn")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    codes = re.findall(r"^code: (.*)$", done.stdout, re.MULTILINE)
    assert codes == ["verify 0", "predict 0", "benchmark 0", "build-engine 2"], done.stderr
    assert drawn_files(tmp_path / "drawn") == ["photo.png"]
