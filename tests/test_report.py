"""What people look at after a run: mistakes, classes, confusion, galleries, plots, the page."""

import csv
import io
import json
import re
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline.core.files import write_csv
from pipeline.core.likelihood_line import likelihood_line
from pipeline.core.plotting import new_figure
from pipeline.evaluation.summary import summarize
from pipeline.networks.complexity import count_macs
from pipeline.networks.saved import load_network
from pipeline.report.annotations import Annotation, annotate_apart
from pipeline.report.confusion_plot import plot_confusion
from pipeline.report.gallery import CELL, GAP, write_gallery
from pipeline.tasks.base import Confusion, Review, Row, Tile
from pipeline.tasks.significance import share_error
from pipeline.tasks.table import get_task
from stages.__main__ import main as fmkt
from tests.detection_scenes import make_scenes
from tests.helpers import ROOT
from workbench.bench import Bench, taught_bench

CPU, TASK = torch.device("cpu"), get_task("classification")
CLASSES = ["cat", "dog", "never seen", "owl"]
LABELS = np.array([0, 0, 1, 1, 1, 3])
LOGITS = np.log(
    np.array(
        [
            [0.9, 0.05, 0.01, 0.04],  # cat, right
            [0.2, 0.7, 0.05, 0.05],  # cat taken for dog
            [0.6, 0.3, 0.05, 0.05],  # dog taken for cat
            [0.01, 0.97, 0.01, 0.01],  # dog, right
            [0.9, 0.03, 0.03, 0.04],  # dog taken for cat, surest
            [0.4, 0.3, 0.1, 0.2],  # owl taken for cat
        ],
        dtype=np.float32,
    )
)


def make_rows() -> list[Row]:
    names = [f"{number}.png" for number in range(len(LABELS))]
    return TASK.image_rows(names, {"logits": LOGITS}, {"labels": LABELS}, CLASSES)


@pytest.fixture
def review() -> Review:
    return TASK.review(make_rows(), CLASSES)


def test_a_row_says_truth_prediction_and_how_probable_each_is() -> None:
    row = make_rows()[1]
    assert tuple(row) == TASK.image_columns == ("file", "truth", "prediction", "probability", "probability_of_truth")
    assert tuple(row.values()) == ("1.png", "cat", "dog", "0.700000", "0.200000")


def test_mistakes_go_from_the_surest_and_all_images_from_the_least_sure(review: Review) -> None:
    rows = make_rows()
    assert review.mistakes == [rows[i] for i in (4, 1, 2, 5)]
    assert review.wrong == [1, 2, 4, 5]
    galleries = {gallery.name: gallery for gallery in review.galleries}
    assert list(galleries) == ["surest_mistakes", "least_sure"]
    assert galleries["surest_mistakes"].positions == [4, 1, 2, 5]
    assert galleries["surest_mistakes"].title == "the surest of 4 mistakes on 6 test images"
    assert galleries["least_sure"].positions == [5, 2, 1, 0, 4, 3], "equally sure images keep their order"


def test_the_precision_is_that_of_the_surest_answers(review: Review) -> None:
    """The surest first: two right ones, then four wrong ones."""
    expected = [(1 / 6, 1), (2 / 6, 1), (2 / 6, 2 / 3), (2 / 6, 2 / 4), (2 / 6, 2 / 5), (2 / 6, 2 / 6)]
    np.testing.assert_allclose([(point.recall, point.precision) for point in review.precision_recall], expected)
    assert TASK.review([], CLASSES).precision_recall == []


def test_figures_of_classes_are_those_of_their_counts(review: Review) -> None:
    found = {row["class"]: tuple(row.values())[1:] for row in review.classes}
    assert review.class_columns == ("class", "images", "predicted", "precision", "recall", "f1")
    assert found == {
        "cat": ("2", "4", "0.2500", "0.5000", "0.3333"),
        "dog": ("3", "2", "0.5000", "0.3333", "0.4000"),
        "never seen": ("0", "0", "", "", ""),
        "owl": ("1", "0", "", "0.0000", "0.0000"),
    }
    assert [CLASSES[i] for i in review.worst_first] == ["owl", "cat", "dog", "never seen"]


def test_the_confusion_is_square_and_has_every_class(review: Review) -> None:
    assert review.confusion.names == tuple(CLASSES)
    np.testing.assert_array_equal(review.confusion.counts, [[1, 1, 0, 0], [2, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert TASK.review([], CLASSES).confusion.counts.shape == (4, 4)


def test_an_accuracy_has_a_binomial_error() -> None:
    assert share_error(0.9, 100) == pytest.approx(0.03)
    assert share_error(1.0, 100) == 0


@pytest.mark.parametrize("count", [2, 25, 300])
def test_the_picture_of_a_confusion_stays_of_a_size_that_can_be_looked_at(count: int, tmp_path: Path) -> None:
    confusion = Confusion(tuple(f"class $_{i}" for i in range(count)), np.eye(count, dtype=np.int64), "images")
    plot_confusion(confusion, tmp_path / "confusion.png", title="confusion")
    assert max(Image.open(tmp_path / "confusion.png").size) < 1500


def make_tiles(count: int, shape: tuple[int, int]) -> list[Tile]:
    pixels = np.random.default_rng(0).integers(256, size=(count, *shape, 3), dtype=np.uint8)
    return [
        Tile(one, (f"a/{'very ' * 20}long name {i}.png", "dog 90%", "is cat 5%"), is_right=False)
        for i, one in enumerate(pixels)
    ]


@pytest.mark.parametrize("shape", [(8, 8), (224, 224), (40, 400)])
def test_a_gallery_takes_images_of_any_size_and_has_the_same_bytes_each_time(
    shape: tuple[int, int], tmp_path: Path
) -> None:
    written = []
    for name in ("one.jpg", "two.jpg"):
        write_gallery(make_tiles(11, shape), tmp_path / name, title="mistakes", empty="none")
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]
    picture = Image.open(io.BytesIO(written[0]))
    assert picture.width == 8 * CELL + GAP
    assert CELL * 2 < picture.height < CELL * 3, "two rows"


def test_a_gallery_without_images_says_so(tmp_path: Path) -> None:
    for name, words in (("nothing", ""), ("says", "no mistake on 9 images")):
        write_gallery([], tmp_path / f"{name}.jpg", title="mistakes", empty=words)
    nothing, says = (np.asarray(Image.open(tmp_path / f"{name}.jpg")) for name in ("nothing", "says"))
    assert nothing.shape == says.shape
    assert (nothing.min(axis=2)[35:] > 200).all()
    assert (says.min(axis=2)[35:] < 100).any()


def test_a_long_title_stays_inside_its_figure() -> None:
    figure, axes = new_figure("a few words of it " * 12 + "\nand more", "y")
    figure.draw_without_rendering()
    box = axes.title.get_window_extent()
    assert figure.bbox.x0 < box.x0 < box.x1 < figure.bbox.x1
    assert axes.title.get_text().endswith("\nand more")


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_texts_beside_points_lie_apart_and_inside_the_frame(spread: float) -> None:
    figure, axes = new_figure("title", "y")
    places = np.random.default_rng(0).random((16, 2)) * [spread, 1] + [0.5, 0]
    axes.plot(*places.T, "o")
    annotate_apart(figure, axes, [Annotation(x, y, f"K = {i}", "black") for i, (x, y) in enumerate(places)])
    frame = axes.get_window_extent()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 16
    for number, box in enumerate(boxes):
        assert frame.x0 < box.x0 < box.x1 < frame.x1
        assert frame.y0 < box.y0 < box.y1 < frame.y1
        assert not any(box.overlaps(other) for other in boxes[:number])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench in which the chain has run to the report, with a name among the images that is no HTML."""
    bench = taught_bench(tmp_path_factory.mktemp("report"))
    names = json.loads((bench.folder / "data/test.names.json").read_text())
    names["names"] = [f"<b>{name}</b> & more" for name in names["names"]]
    (bench.folder / "data/test.names.json").write_text(json.dumps(names))
    for command in (bench.distill, bench.calibrate, bench.trace, bench.export, bench.measure):
        result = command({})
        assert result.exit_code == 0, result.output
    for runtime, artifact in (("onnx", "onnx"), ("torch", "student")):
        result = bench.evaluate(runtime, artifact, {})
        assert result.exit_code == 0, result.output
    teacher = bench.json("teacher.json") | {"warnings": ["the teacher is <no> good"]}
    (bench.folder / "teacher.json").write_text(json.dumps(teacher))
    result = bench.report({})
    assert result.exit_code == 0, result.output
    return bench


def table(bench: Bench, name: str) -> list[dict[str, str]]:
    with (bench.folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_mistakes_are_those_of_the_deployed_file_by_their_names(bench: Bench) -> None:
    images, labels = (load_file(bench.folder / "data/test.safetensors")[name] for name in ("images", "labels"))
    names, classes = bench.json("data/test.names.json")["names"], bench.json("data/data.json")["classes"]
    session = onnxruntime.InferenceSession(bench.folder / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    found = session.run(["logits"], {"image": pixels})[0].argmax(axis=1)
    expected = {names[i]: (classes[labels[i]], classes[found[i]]) for i in np.flatnonzero(found != labels)}
    mistakes = table(bench, "mistakes.csv")
    assert len(mistakes) > 3
    assert {row["file"]: (row["truth"], row["prediction"]) for row in mistakes} == expected
    sure = [float(row["probability"]) for row in mistakes]
    assert sure == sorted(sure, reverse=True)


def test_the_headline_figures_are_few_and_those_of_the_records(bench: Bench) -> None:
    report, headline = bench.json("onnx.json"), bench.json("metrics.json")
    accuracy, count = report["accuracy"], report["num_images"]
    manifest, calibration = bench.json("onnx/manifest.json"), bench.json("calibration/calibration.json")
    (own,) = [point for point in calibration["curve"] if point["num_steps"] == manifest["num_steps"]]
    (deployed,) = [row for row in table(bench, "likelihood.csv") if row["num_steps"] == str(manifest["num_steps"])]
    assert headline == {
        "accuracy": accuracy,
        "accuracy_error": pytest.approx((accuracy * (1 - accuracy) / count) ** 0.5),
        "student": bench.json("torch.json")["accuracy"],
        "teacher": bench.json("teacher.json")["test_accuracy"],
        "K": manifest["num_steps"],
        "nll_bits": float(deployed["bound_bits"]),
        "params": bench.json("student.json")["num_parameters"],
        "macs_ratio": pytest.approx(own["macs"] / calibration["plain"]["macs"], abs=1e-3),
        "bytes": (bench.folder / "onnx/model.onnx").stat().st_size,
        "ms": report["latency_ms"]["1"]["p50"],
    }


def test_classes_and_confusion_count_every_image(bench: Bench) -> None:
    classes, mistakes = table(bench, "per_class.csv"), table(bench, "mistakes.csv")
    count = bench.json("onnx.json")["num_images"]
    assert [row["class"] for row in classes] == bench.json("data/data.json")["classes"]
    assert sum(int(row["images"]) for row in classes) == sum(int(row["predicted"]) for row in classes) == count
    pairs = table(bench, "confusion.csv")
    assert sum(int(row["images"]) for row in pairs) == count
    assert sum(int(row["images"]) for row in pairs if row["truth"] != row["prediction"]) == len(mistakes)


def test_each_number_of_steps_has_its_figures_of_the_theorem(bench: Bench) -> None:
    keys = ("num_steps", "bound", "mixture", "ensemble")
    whole = [{key: row[key] for key in keys} for row in table(bench, "likelihood.csv")]
    assert table(bench, "likelihood_by_steps.csv") == whole


def test_each_number_of_steps_has_its_score_on_both_splits(bench: Bench) -> None:
    rows = table(bench, "score_by_steps.csv")
    curve = bench.json("calibration/calibration.json")["curve"]
    assert [(int(row["num_steps"]), float(row["calib"])) for row in rows] == [
        (point["num_steps"], pytest.approx(point["accuracy"], rel=1e-5)) for point in curve
    ]
    traced = {row["num_steps"]: row["accuracy"] for row in table(bench, "flow_by_num_steps.csv")}
    assert {row["num_steps"]: row["test"] for row in rows} == traced


def test_plots_read_scores_by_names_that_are_the_same_for_every_task(bench: Bench) -> None:
    rows = table(bench, "score_by_epoch.csv")
    for name in ("teacher", "student"):
        expected = [(row["epoch"], row["val_accuracy"]) for row in table(bench, f"{name}.csv")]
        assert [(row["epoch"], row["score"]) for row in rows if row["curve"] == name] == expected != []
    last = table(bench, "precision_recall.csv")[-1]
    accuracy = f"{bench.json('onnx.json')['accuracy']:.6g}"
    assert last == {"curve": "surest answers", "recall": accuracy, "precision": accuracy}, "of all answers"


def test_galleries_are_those_of_the_task(bench: Bench) -> None:
    files = [path.name for path in sorted((bench.folder / "report/galleries").iterdir())]
    assert files == ["least_sure.jpg", "surest_mistakes.jpg"]


@pytest.fixture(scope="module")
def detection(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench whose records are those of a detector, as far as the report reads them."""
    folder, scenes, task = tmp_path_factory.mktemp("detection") / "bench", make_scenes(60), get_task("detection")
    shutil.copytree(bench.folder, folder)
    for path in [*folder.rglob("*.json"), *folder.rglob("*.csv")]:
        path.write_text(path.read_text().replace("accuracy", task.primary))
    scores = {**task.score(scenes.outputs, scenes.truth), task.primary_error: 0.01, "num_images": 60}
    about = {"task": task.name, "classes": scenes.class_names, "resize": "letterbox"}
    changes = {"data/data.json": about, "onnx.json": scores, "torch_scores.json": scores}
    for name, change in changes.items():
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | change))
    names = [f"<i>{number}</i>.png" for number in range(60)]
    write_csv(
        folder / "onnx.csv",
        task.image_columns,
        task.image_rows(names, scenes.outputs, scenes.truth, scenes.class_names),
    )
    save_file({"images": np.full((60, 64, 64, 3), 90, np.uint8)}, folder / "data/test.safetensors")
    result = Bench(folder, bench.write).report({})
    assert result.exit_code == 0, result.output
    return Bench(folder, bench.write)


def test_the_report_of_detections_has_its_own_figures_tables_and_galleries(detection: Bench) -> None:
    report, headline = detection.json("onnx.json"), detection.json("metrics.json")
    assert (headline["ap"], headline["ap_error"], headline["ap50"]) == (report["ap"], 0.01, report["ap50"])
    assert "accuracy" not in headline
    galleries = sorted((detection.folder / "report/galleries").iterdir())
    assert [path.name for path in galleries] == ["missed.jpg", "poorly_placed.jpg", "wrong.jpg"]
    curve = table(detection, "precision_recall.csv")
    at_half = [float(row["precision"]) for row in curve if row["curve"] == "IoU 0.5"]
    assert np.mean(at_half) == pytest.approx(report["ap50"], abs=1e-5)
    classes = [float(row["ap"]) for row in table(detection, "per_class.csv")]
    assert np.mean(classes) == pytest.approx(report["ap"], abs=1e-4)
    assert {row["curve"] for row in table(detection, "score_by_epoch.csv")} == {"teacher", "student"}
    page = Links((detection.folder / "report/report.html").read_text())
    assert "i" not in page.tags, "names of files are text"
    for words in ("AP (test, 60 images)", "poorly placed", "overlap (intersection over union)"):
        assert words in page.text
    assert len(page.links) == 12, "nine charts and three galleries"


class Links(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_holds_all_that_it_shows(bench: Bench) -> None:
    text = (bench.folder / "report/report.html").read_text()
    page = Links(text)
    assert len(page.links) >= 8
    assert all(link.startswith("data:image/") for link in page.links)
    assert not re.search(r"url\(|@import|<script|<link", text)
    assert "b" not in page.tags, "names of files are text"
    assert table(bench, "mistakes.csv")[0]["file"] in page.text
    assert "the teacher is <no> good" in page.text
    assert f"{bench.json('onnx.json')['accuracy']:.2%} +/- " in page.text


def test_the_plain_student_stands_beside_the_deployed_one(bench: Bench, tmp_path: Path) -> None:
    student, _ = load_network(bench.folder / "student")
    plain = student.without_flows().eval()
    size = {"num_parameters": sum(p.numel() for p in plain.parameters()), "macs": count_macs(plain, (8, 8), CPU)}
    assert bench.json("calibration/calibration.json")["plain"] == size
    first = table(bench, "curve.csv")[0]
    assert (first["num_steps"], first["accuracy"], first["macs"]) == ("0", "", str(size["macs"]))
    assert float(first["latency_ms"]) > 0
    timed = bench.json("tradeoff/tradeoff.json")["plain"]
    assert {name: timed[name] for name in size} == size
    assert list(timed["latency_by_batch_ms"]) == ["1", "32"]
    page = Links((bench.folder / "report/report.html").read_text())
    assert "plain student, without its flow" in page.text
    assert f"{size['macs']:,}" in page.text
    text = summarize(project_of(bench, tmp_path))
    summary = text.splitlines()
    labels = [line.split("  ")[0] for line in summary[: summary.index("")] if not line.startswith(" ")]
    assert labels[:5] == ["ships", "how good", "how large", "how fast", "how sure"]
    assert all(len(line) <= 100 for line in summary)
    assert likelihood_line(table(bench, "likelihood.csv")[0]) in " ".join(text.split())
    assert likelihood_line(table(bench, "likelihood.csv")[0]) in page.text
    (row,) = [line for line in summary if line.startswith("plain student")]
    assert row.split()[5:7] == [f"{value:,}" for value in size.values()]
    (ratios,) = [line.split()[1:] for line in summary if line.startswith("ratio")]
    assert ratios[1] == f"{bench.json('metrics.json')['macs_ratio']:.2f}x"
    assert len(ratios) == 4


def project_of(bench: Bench, root: Path) -> Path:
    """Return ``root`` with what the summary reads."""
    for name in ("student", "calibration", "onnx", "tradeoff"):
        shutil.copytree(bench.folder / name, root / "artifacts" / name)
    (root / "reports/evaluation").mkdir(parents=True)
    shutil.copy(bench.folder / "likelihood.csv", root / "reports")
    for name, place in (("teacher", ""), ("student", ""), ("onnx", "evaluation"), ("torch", "evaluation")):
        shutil.copyfile(bench.folder / f"{name}.json", root / "reports" / place / f"{name}.json")
    (root / "reports/evaluation/tensorrt.json").write_text('{"status": "skipped", "reason": "no GPU"}')
    return root


def test_the_tradeoff_names_teacher_and_plain_student(bench: Bench) -> None:
    tradeoff: dict[str, Any] = bench.json("tradeoff/tradeoff.json")
    assert tradeoff["plain"]["latency_ms"] > 0
    assert 0 < tradeoff["plain"]["bytes"] < min(point["bytes"] for point in tradeoff["points"])
    picture = (bench.folder / "report/card/tradeoff.svg").read_text()
    for words in (
        "teacher, ",
        "plain student without its flow, ",
        "fp32, with standard error",
        "Pareto front",
        "K = 2",
    ):
        assert f"<!-- {words}" in picture
    assert "(359 images), %" in picture


def test_a_damaged_record_is_named(bench: Bench) -> None:
    path = bench.folder / "onnx.csv"
    whole = path.read_bytes()
    path.write_bytes(b"\xff" + whole)
    result = bench.report({})
    path.write_bytes(whole)
    assert result.exit_code == 2
    assert f"error: {path}: not valid CSV" in result.output
    path.write_bytes(b"\n".join(whole.splitlines()[:-9]) + b"\n")
    assert f"{path}: not what ONNX Runtime found on 359 images" in bench.report({}).output
    path.write_bytes(whole)
    tradeoff = bench.folder / "tradeoff/tradeoff.json"
    before = tradeoff.read_text()
    tradeoff.write_text(json.dumps(json.loads(before) | {"num_images": None}))
    assert f"error: {tradeoff}: num_images: got None, expected a whole number" in bench.report({}).output
    tradeoff.write_text(before)
    assert (bench.folder / "report/report.html").exists(), "the earlier report stays"


def test_pages_of_plots_have_their_scripts_inside(tmp_path: Path) -> None:
    pytest.importorskip("vl_convert", reason="vl-convert-python is not installed; make install brings it")
    result = CliRunner().invoke(fmkt, ["offline-plots", "--out", str(tmp_path / "plots.html")])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "plots.html").read_text()
    assert page.count("{plot_divs}") == page.count("{refresh_tag}") == 1, "DVC fills them in"
    assert "{scripts}" not in page, "DVC would put links to the network there"
    assert page.count("<script") == 1
    assert "window.vegaEmbed" in page
    assert Links(page).links == []


DRAWN = {
    "calibration/calibration.json": "artifacts/calibration/calibration.json",
    "tradeoff/tradeoff.json": "artifacts/tradeoff/tradeoff.json",
    "onnx.csv": "artifacts/evaluation/onnx_predictions.csv",
    **{f"{name}.csv": f"reports/{name}.csv" for name in ("score_by_epoch", "likelihood_by_steps", "per_class")},
    "precision_recall.csv": "reports/precision_recall.csv",
}
"""From where a bench has what the example draws to where a chain has it."""


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], dict[str, Any]]]:
    """Return a function that runs the example that draws a run, in a folder of its own, and returns its variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["draw_run.py", "drawn.png"])
    with plt.rc_context({"backend": "agg"}):
        yield lambda: runpy.run_path(str(ROOT / "examples/draw_run.py"))
    plt.close("all")


def lay_out(bench: Bench) -> None:
    for name, place in DRAWN.items():
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bench.folder / name, place)


def values(axes: Any) -> list[float]:
    """Return the values of the points that are drawn as shares of a count, in their order."""
    return [float(line.get_ydata()[1]) for line in axes.get_lines() if line.get_markevery() == [1]]


@pytest.mark.parametrize("task", ["bench", "detection"])
def test_the_example_draws_a_run_as_its_reports_have_it(
    task: str, request: pytest.FixtureRequest, draw: Callable[[], dict[str, Any]]
) -> None:
    bench = request.getfixturevalue(task)
    lay_out(bench)
    panels = draw()
    score = "ap" if task == "detection" else "accuracy"
    curve, points = bench.json("calibration/calibration.json")["curve"], bench.json("tradeoff/tradeoff.json")["points"]
    for axes, expected in (
        (panels["steps"], [[point[score] for point in curve], [point[score] for point in points]]),
        (panels["latency"], [[point[score] for point in points]]),
    ):
        bars = [container.lines[0] for container in axes.containers]
        assert [[*line.get_ydata()] for line in bars] == expected
        assert all(container.has_yerr for container in axes.containers)
    assert panels["latency"].get_xlim()[0] == 0
    recalls = sorted(float(row["recall"]) for row in table(bench, "per_class.csv") if row["recall"])
    np.testing.assert_allclose(values(panels["classes"])[: len(recalls)], recalls, atol=1e-4)
    if task == "detection":
        assert {"IoU 0.5"} <= {text.get_text() for text in panels["trust"].get_legend().get_texts()}
    else:
        rights = [row["truth"] == row["prediction"] for row in table(bench, "onnx.csv")]
        sizes = [len(tenth) for tenth in np.array_split(rights, 10)]
        assert np.average(values(panels["trust"]), weights=sizes) == pytest.approx(np.mean(rights))
    assert Image.open("drawn.png").size == (1600, 900)


def test_the_example_says_what_it_does_not_find(draw: Callable[[], dict[str, Any]]) -> None:
    with pytest.raises(SystemExit, match=r"error: there is no artifacts/calibration/calibration\.json; run dvc repro"):
        draw()


def test_the_example_leaves_out_a_likelihood_that_there_is_not(
    bench: Bench, draw: Callable[[], dict[str, Any]]
) -> None:
    lay_out(bench)
    Path("reports/likelihood_by_steps.csv").write_text("num_steps,bound,mixture,ensemble\n")
    panels = draw()
    assert not panels["likelihood"].get_visible()
    assert panels["epochs"].get_visible()
