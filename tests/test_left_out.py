"""A precision that fails its gate, and what stages warned of: through every later stage into a package that works."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.evaluation.summary import summarize
from pipeline.package.reader import Package
from pipeline.package.writer import write_sums
from stages.__main__ import main
from tests.helpers import refused
from workbench.bench import Bench
from workbench.project import write_params

CHANGES = {
    "distill_student.method": "none",
    "distill_student.backbone": "resnet8_x0_25",
    "distill_student.training.epochs": 4,
    "calibrate_steps.candidates": [1],
    "export_onnx.num_samples": 8,
    "export_onnx.precisions": ["fp32", "fp16", "int8-cpu"],
    "export_onnx.gates.fp16.max_difference": 1e-9,
    "export_onnx.gates.int8-cpu.min_agreement": 0.5,
    "export_onnx.gates.int8-cpu.max_drop": 0.5,
    "export_tensorrt.precisions": ["fp32", "fp16"],
    "measure_tradeoff.precisions": ["fp16", "int8-cpu"],
}
TEACHER, STUDENT = "train_teacher: at chance", "distill_student: one class for all"


def add_warning(path: Path, text: str) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": [text]}))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench in which fp16 was left out, and the chain went on to a package."""
    folder = tmp_path_factory.mktemp("left_out")
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    bench.prepare()
    (folder / "teacher.json").write_text(json.dumps({"status": "not needed", "warnings": [TEACHER]}))
    (folder / "teacher.csv").write_text("epoch,loss,val_accuracy\n")
    for command in (bench.distill, bench.calibrate, bench.trace):
        assert command(CHANGES).exit_code == 0
    add_warning(folder / "student.json", STUDENT)
    exported = bench.export(CHANGES)
    assert exported.exit_code == 0, exported.output
    assert re.search(r"model.fp16.onnx, test split, 359 images: outputs differ by .*fp16 is left out", exported.output)
    for result in (bench.measure(CHANGES), bench.engines(CHANGES), bench.evaluate("tensorrt", "tensorrt", CHANGES)):
        assert result.exit_code == 0, result.output
    bench.to_package(CHANGES)
    return bench


@pytest.fixture
def package(bench: Bench, tmp_path: Path) -> Path:
    return shutil.copytree(bench.folder / "package", tmp_path / "package")


def run(command: str, package: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [command, "--package", str(package), *words])


def test_a_required_precision_stops_the_export_and_names_the_ways_out(bench: Bench) -> None:
    before = sorted((bench.folder / "onnx").iterdir())
    result = bench.export(CHANGES | {"export_onnx.required": ["fp32", "fp16"]})
    assert result.exit_code == 1
    (line,) = [line for line in result.output.splitlines() if line.startswith("error: ")]
    for words in (
        "error: model.fp16.onnx, test split, 359 images: outputs differ by",
        "(export_onnx.gates.fp16.max_difference); loosen that bound to accept it",
        "export_onnx.required demands fp16: where training warned, mend that first, or take fp16 out of it",
    ):
        assert words in line
    assert sorted((bench.folder / "onnx").iterdir()) == before


def test_the_manifest_says_what_was_left_out_and_why(bench: Bench) -> None:
    manifest = bench.json("onnx/manifest.json")
    assert {entry["precision"] for entry in manifest["files"].values()} == {"fp32", "int8-cpu"}
    assert list(manifest["left_out"]) == ["fp16"]
    assert manifest["left_out"]["fp16"].startswith("model.fp16.onnx, test split, 359 images: outputs differ by")
    assert not (bench.folder / "onnx/model.fp16.onnx").exists()


def test_engines_and_their_evaluation_say_that_there_is_no_file(bench: Bench) -> None:
    status = bench.json("tensorrt/status.json")
    assert list(status["left_out"]) == ["fp16"]
    assert list(status["on_the_target_device"]) == ["fp32"]
    assert bench.json("tensorrt.json")["status"] == "skipped"
    paths = {"out": "only_fp16"}
    assert bench.run("export_tensorrt", CHANGES | {"export_tensorrt.precisions": ["fp16"]}, **paths).exit_code == 0
    only = bench.json("only_fp16/status.json")
    assert (only["status"], only["reason"]) == ("skipped", "the ONNX export left out fp16")


def test_the_tradeoff_has_the_file_all_the_same(bench: Bench) -> None:
    """It measures what each file is good for; gates are the export's."""
    report = bench.json("tradeoff/tradeoff.json")
    assert {point["precision"] for point in report["points"]} == {"fp16", "int8-cpu"}
    assert report["left_out"] == []


def test_the_package_says_first_what_was_warned_of(package: Path) -> None:
    opened = Package.open(package)
    assert opened.warnings[:2] == [TEACHER, STUDENT]
    assert opened.warnings[2].startswith("fp16 is left out: model.fp16.onnx")
    card = (package / "README.md").read_text()
    head = card[: card.index("A compact image classifier.")]
    assert "Read this first" in head
    assert all(f"> - {text}" in head for text in opened.warnings)
    assert re.search(r"test images, with its standard error \| \d+\.\d\d% \+/- \d\.\d\d \| no teacher", card)


def test_verify_repeats_the_warnings_and_passes(package: Path) -> None:
    result = run("verify", package)
    assert result.exit_code == 0, result.output
    assert [line for line in result.output.splitlines() if line.startswith("warning: ")] == [
        f"warning: {text}" for text in Package.open(package).warnings
    ]
    assert "intact" in result.output


def test_who_asks_for_the_file_is_told_why_there_is_none(package: Path) -> None:
    for command, words in (("predict", ["x.png"]), ("build-engine", [])):
        result = run(command, package, "--precision", "fp16", *words)
        refused(result, "has no file of precision 'fp16'; it has fp32, int8-cpu (fp16 was left out: model.fp16.onnx")
    assert run("benchmark", package, "--iterations", "10", "--warmup", "1").exit_code == 0


@pytest.fixture
def root(bench: Bench, tmp_path: Path) -> Path:
    """Return a project folder with what the summary reads."""
    for name in ("student", "calibration", "onnx", "tradeoff"):
        shutil.copytree(bench.folder / name, tmp_path / "project/artifacts" / name)
    (tmp_path / "project/reports/evaluation").mkdir(parents=True)
    for name in ("teacher", "student"):
        shutil.copyfile(bench.folder / f"{name}.json", tmp_path / f"project/reports/{name}.json")
    for name in ("onnx", "tensorrt"):
        shutil.copyfile(bench.folder / f"{name}.json", tmp_path / f"project/reports/evaluation/{name}.json")
    return tmp_path / "project"


def test_the_summary_ends_with_the_warnings(root: Path, package: Path) -> None:
    text = summarize(root)
    assert all(len(line) <= 100 for line in text.splitlines())
    whole = text.replace("\n  ", " ").splitlines()  # lines that were wrapped
    assert [line for line in whole if line.startswith("warning: ")] == [
        f"warning: {warning}" for warning in Package.open(package).warnings
    ]
    assert f"{len(Package.open(package).warnings)} warning" in " ".join(text.split())
    assert re.search(r"top-1 accuracy .*\d\d\.\d\d% \+/- \d\.\d\d", text)


@pytest.mark.parametrize(
    ("fp32", "int8", "words"),
    [
        (1.0, 2.0, "model.onnx (1.000 ms)"),
        (3.0, 2.0, "model.int8-cpu.onnx (2.000 ms, 1.50 times as fast as model.onnx)"),
        (2.04, 2.0, "model.onnx (2.040 ms, not to be told from model.int8-cpu.onnx, 2.000 ms)"),
    ],
)
def test_the_summary_names_the_fastest_file(fp32: float, int8: float, words: str, root: Path) -> None:
    path = root / "reports/evaluation/onnx.json"
    report = json.loads(path.read_text())
    for found, milliseconds in ((report, fp32), (report["precisions"]["int8-cpu"], int8)):
        found["latency_ms"]["1"] |= {"p50": milliseconds, "p95": 1.1 * milliseconds}
    path.write_text(json.dumps(report))
    said = re.search(r"^how fast (.*?)\n\w", summarize(root), re.MULTILINE | re.DOTALL)
    assert said is not None
    assert words in " ".join(said[1].split()).split(";")[0]


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("calibration/calibration.json", {"num_steps": "four"}, "num_steps: got 'four', expected a whole number"),
        ("calibration/calibration.json", {"curve": []}, "num_steps is None, which curve does not have"),
        ("onnx/manifest.json", {"files": ["model.onnx"]}, "files: got ['model.onnx'], expected an object"),
        ("onnx/manifest.json", {"left_out": {"fp16": 3}}, "left_out.fp16: got 3, expected a text"),
        ("student.json", {"num_parameters": None}, "num_parameters: got None"),
        ("teacher.json", {"warnings": "none"}, "warnings: got 'none', expected a list"),
        ("tradeoff/tradeoff.json", {"points": [{}]}, "has no points.0.num_steps"),
        ("onnx_scores.json", {"accuracy": "high"}, "accuracy is 'high', expected a number"),
        ("onnx_scores.json", {"parity": {}}, "has no parity.max_abs"),
        ("data/data.json", {"classes": "ab"}, "classes: got 'ab'"),
        ("data/data.json", {"resize": "stretched"}, "resize: got 'stretched', expected 'none' or"),
    ],
)
def test_a_damaged_record_is_one_line_with_the_stage_to_run_again(
    name: str, damage: dict[str, object], words: str, bench: Bench
) -> None:
    path = bench.folder / name
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | damage))
    try:
        result = bench.package(CHANGES)
    finally:
        path.write_text(before)
    written_by = {
        "calibration/calibration.json": "calibrate_steps",
        "onnx/manifest.json": "export_onnx",
        "student.json": "distill_student",
        "teacher.json": "train_teacher",
        "tradeoff/tradeoff.json": "measure_tradeoff",
        "onnx_scores.json": "evaluate",
        "data/data.json": "prepare_data",
    }[name]
    refused(result, f"{path}: {words}", f"run {written_by} again")


@pytest.mark.parametrize("wrong", [10, -1, 2**40])
def test_labels_of_no_class_in_the_samples_are_one_line(wrong: int, package: Path) -> None:
    from safetensors.numpy import load_file, save_file

    samples = load_file(package / "samples.safetensors")
    samples["labels"][3] = wrong
    save_file(samples, package / "samples.safetensors")
    write_sums(package)
    refused(run("verify", package), f"samples.safetensors: labels hold {wrong}, expected 0 to 9", "fetch the package")
