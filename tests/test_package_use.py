"""A package in the hands of its consumer: predicted with, verified, timed, and damaged in every way."""

import contextlib
import csv
import itertools
import json
import os
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
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline.core.arrays import Outputs
from pipeline.core.errors import UserError
from pipeline.package.pictures import ImageFile
from pipeline.package.predict import BATCH, predict_files
from pipeline.package.reader import Package
from pipeline.package.writer import write_sums
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Prediction
from stages.__main__ import main
from tests.helpers import ROOT, make_archive, refused
from workbench.bench import Bench
from workbench.project import write_params

CHANGES = {
    "distill_student.method": "ofm_kt",
    "distill_student.backbone": "resnet8_x0_25",
    "distill_student.training.epochs": 20,
    "calibrate_steps.candidates": [2, 4],
    "export_onnx.batch_sizes": [1, 7],
    "export_onnx.collapse": False,
    "export_onnx.num_samples": 8,
    "export_onnx.precisions": ["fp32", "fp16", "int8-cpu", "int8-trt"],
    "export_onnx.gates.fp16.min_agreement": 0.9,
    "export_onnx.gates.fp16.max_drop": 0.1,
    "export_onnx.gates.int8-cpu.min_agreement": 0.5,
    "export_onnx.gates.int8-cpu.max_drop": 0.5,
    "export_onnx.gates.int8-trt.min_agreement": 0.5,
    "export_onnx.gates.int8-trt.max_drop": 0.5,
    "measure_tradeoff.precisions": ["fp32", "int8-cpu"],
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Return a bench in which the chain has run to a package with a file of every precision."""
    folder = tmp_path_factory.mktemp("package")
    bench = Bench(folder, lambda changes: write_params(folder / "params.yaml", changes))
    bench.prepare()
    (folder / "teacher.json").write_text(json.dumps({"status": "not needed"}))
    (folder / "teacher.csv").write_text("epoch,loss,val_accuracy\n")
    for command in (bench.distill, bench.calibrate, bench.trace, bench.export, bench.measure):
        result = command(CHANGES)
        assert result.exit_code == 0, result.output
    bench.to_package(CHANGES)
    return bench


@pytest.fixture
def package(bench: Bench, tmp_path: Path) -> Path:
    """Return a copy of the package, to be spoilt."""
    return shutil.copytree(bench.folder / "package", tmp_path / "package")


def run(command: str, package: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [command, "--package", str(package), *words])


@pytest.fixture
def pictures(package: Path, tmp_path: Path) -> list[Path]:
    """Return the packaged images as PNG files."""
    paths = []
    for number, pixels in enumerate(load_file(package / "samples.safetensors")["images"][:5]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(paths[-1])
    return paths


def test_a_prediction_is_the_softmax_of_the_trained_logits(package: Path, pictures: list[Path]) -> None:
    labels = json.loads((package / "labels.json").read_text())["labels"]
    result = run("predict", package, "--json", "--top", "10", *map(str, pictures))
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["image"] for line in found] == list(map(str, pictures))
    for line, logits in zip(found, load_file(package / "samples.safetensors")["logits"], strict=False):
        soft_targets = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert [item["label"] for item in line["labels"]] == [labels[i] for i in np.argsort(-soft_targets)]
        np.testing.assert_allclose(
            [item["probability"] for item in line["labels"]], sorted(-soft_targets) * np.array(-1), atol=1e-4
        )
    short = run("predict", package, "--top", "1", str(pictures[0])).stdout
    assert re.fullmatch(rf"{pictures[0]}: \w+ \d+\.\d\d%\n", short)


def test_other_sizes_and_modes_are_prepared_as_in_training(package: Path, pictures: list[Path]) -> None:
    picture = Image.open(pictures[0])
    large = pictures[0].with_name("large.png")
    picture.resize((80, 80), Image.Resampling.NEAREST).convert("RGBA").save(large)
    near, exact = (json.loads(run("predict", package, "--json", str(p)).stdout) for p in (large, pictures[0]))
    assert near["labels"][0]["label"] == exact["labels"][0]["label"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.png"], "nothing.png: no such file, folder or archive"),
        ([""], "an empty path was given"),
        (["tests"], "tests: holds no images ("),
        (["--json", "--out", "x.csv", "x.png"], "--out writes CSV, --json prints; give one of them"),
        (["--precision", "int4", "x.png"], "has no file of precision 'int4'; it has fp16, fp32, int8-cpu, int8-trt"),
    ],
)
def test_a_prediction_that_cannot_be_made_is_one_line(words: list[str], said: str, package: Path) -> None:
    refused(run("predict", package, *words), said)


@pytest.fixture
def album(pictures: list[Path], tmp_path: Path) -> Path:
    """Return a folder of images, of which one is damaged, and other files."""
    folder = tmp_path / "an album"
    for number, picture in enumerate(pictures):
        place = folder / ("inner" if number % 2 else ".") / picture.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, place)
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:-30])
    (folder / "notes.txt").write_text("no image")
    return folder


SEEN = ["0.png", "4.png", "inner/1.png", "inner/3.png"]


def test_a_folder_is_answered_but_for_what_is_damaged(package: Path, album: Path, tmp_path: Path) -> None:
    table = tmp_path / "new/results.csv"
    done = run("predict", package, str(album), "--out", str(table))
    assert done.exit_code == 1
    assert done.stdout == ""
    passed_over, answered, *_, damaged, count = done.stderr.splitlines()
    assert answered == f"4 of 5 images answered, in {table}"
    assert passed_over == f"{album}: passed over 1 .txt"
    assert damaged.startswith(f"error: {album}/2.png: damaged or truncated image")
    assert count == "error: 1 of 5 images not read, 4 answered"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(album / name) for name in SEEN]
    assert {row["rank"] for row in rows} == {"1"}
    printed = [json.loads(line) for line in run("predict", package, str(album), "--json").stdout.splitlines()]
    assert [line["image"] for line in printed] == [row["file"] for row in rows]
    for row, line in zip(rows, printed, strict=True):
        assert {"label": row["label"], "probability": float(row["probability"])} == line["labels"][0]


def test_an_archive_and_files_are_answered_and_more_than_the_first_label(
    package: Path, album: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (album / "2.png").unlink()
    archive, table = make_archive(album, "zip"), tmp_path / "results.csv"
    monkeypatch.delenv("DVC_ROOT")
    monkeypatch.chdir(package)
    before = sorted(package.rglob("*"))
    done = run("predict", package, str(archive), str(pictures[0]), "--out", str(table), "--top", "2")
    assert done.exit_code == 0, done.stderr
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    files = [*(str(archive / name) for name in SEEN), str(pictures[0])]
    assert [(row["file"], row["rank"]) for row in rows] == [(name, rank) for name in files for rank in ("1", "2")]
    assert rows[0] == {**rows[-2], "file": files[0]}, "the same image"
    assert sorted(package.rglob("*")) == before, "a folder that holds more is refused by verify"


def test_predictions_come_as_they_are_made(package: Path, pictures: list[Path]) -> None:
    opened, read = Package.open(package), []

    class Watched(OnnxRuntime):
        def infer(self, images: NDArray[Any]) -> Outputs:
            read.append(len(images))
            return super().infer(images)

    runtime = Watched(opened.file("fp32"), provider="cpu", num_threads=1)
    files = [ImageFile(str(number), pictures[number % 5]) for number in range(2 * BATCH + 1)]
    found = predict_files(opened, runtime, files, top=1)
    first = [prediction.image for prediction in itertools.islice(found, BATCH) if isinstance(prediction, Prediction)]
    assert first == [file.name for file in files[:BATCH]]
    assert read == [BATCH], "what follows is not even decoded"
    assert len(list(found)) == BATCH + 1
    assert read == [BATCH, BATCH, 1]


def test_a_terminal_shows_how_far_a_table_is(package: Path, album: Path, tmp_path: Path) -> None:
    words = ["-m", "stages", "predict", "--package", package, album, "--out", tmp_path / "results.csv"]
    ours, terminal = os.openpty()
    with subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        shown = b""
        with contextlib.suppress(OSError):  # at its end a terminal answers with an error
            while block := os.read(ours, 4096):
                shown += block
    os.close(ours)
    assert process.returncode == 1
    assert b"5/5" in shown
    assert shown.rstrip().endswith(b"error: 1 of 5 images not read, 4 answered\x1b[0m")  # in red


def test_this_folder_is_a_folder_too(package: Path, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    done = run("predict", package, ".")
    assert len(done.stdout.splitlines()) == 4
    assert done.stdout.startswith("0.png: ")


def test_control_characters_of_a_name_do_not_reach_the_terminal(
    package: Path, pictures: list[Path], tmp_path: Path
) -> None:
    odd = tmp_path / "a\x1b[31m\nerror: forged\u202e.png"
    shutil.copy(pictures[0], odd)
    (tmp_path / "broken\nerror: forged.png").write_bytes(b"")
    done = run("predict", package, str(odd), str(tmp_path / "broken\nerror: forged.png"))
    assert len(done.stdout.splitlines()) == 1
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output
    assert not [line for line in done.stderr.splitlines() if line.startswith("error: forged")]
    assert "the file is empty" in done.stderr


def test_a_name_that_is_no_text_is_printed(package: Path, pictures: list[Path], tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"\xff.png")
    shutil.copy(pictures[0], odd)
    for words, start in (([], f"{tmp_path}/\\xff.png: "), (["--json"], f'{{"image": "{tmp_path}/\\udcff.png", ')):
        assert run("predict", package, *words, str(odd)).stdout.startswith(start)
    table = tmp_path / "results.csv"
    assert run("predict", package, "--out", str(table), str(odd)).exit_code == 0
    assert os.fsencode(odd) in table.read_bytes()


def test_a_whole_package_is_intact_and_right(package: Path) -> None:
    result = run("verify", package)
    assert result.exit_code == 0, result.output
    count = len([path for path in package.rglob("*") if path.is_file()]) - 1
    assert f"intact, {count} files agree with their sums" in result.output
    assert len(re.findall(r"^model\S*\.onnx .*right$", result.output, re.MULTILINE)) == 4
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=package, check=True)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("model.onnx", flip, "model.onnx: differs from its SHA-256 in SHA256SUMS"),
        ("model.int8-cpu.onnx", lambda path: path.write_bytes(path.read_bytes()[:-9]), "model.int8-cpu.onnx: differs"),
        ("labels.json", Path.unlink, "labels.json: missing"),
        ("samples.safetensors", flip, "samples.safetensors: differs"),
        ("triton/fmkt-student/config.pbtxt", flip, "triton/fmkt-student/config.pbtxt: differs"),
        ("SHA256SUMS", Path.unlink, "SHA256SUMS: cannot be read"),
        ("SHA256SUMS", lambda path: path.write_text("nonsense"), "SHA256SUMS: not a list of SHA-256 sums"),
        ("extra.sh", lambda path: path.write_text("echo"), "extra.sh: not listed in SHA256SUMS"),
    ],
)
def test_a_damaged_file_is_named(name: str, damage: Callable[[Path], Any], said: str, package: Path) -> None:
    damage(package / name)
    refused(run("verify", package), said)


def test_every_damaged_file_is_named(package: Path) -> None:
    flip(package / "model.onnx")
    flip(package / "model.fp16.onnx")
    result = run("verify", package)
    assert result.exit_code == 2
    assert len(re.findall(r"^error: \S+model\S*onnx: differs", result.output, re.MULTILINE)) == 2


def test_a_damaged_description_does_not_hide_the_other_damage(package: Path) -> None:
    flip(package / "manifest.json")
    flip(package / "model.onnx")
    for command, words in (
        ("verify", []),
        ("predict", ["x.png"]),
        ("serve", []),
        ("benchmark", []),
        ("build-engine", []),
    ):
        result = run(command, package, *words)
        assert result.exit_code == 2
        found = re.findall(r"^error: (\S+): differs from its SHA-256.*; fetch the package again$", result.output, re.M)
        assert found == [str(package / "manifest.json"), str(package / "model.onnx")]


def test_verify_names_what_is_damaged_and_what_does_not_belong_in_one_go(package: Path) -> None:
    (package / "extra").write_text("")
    flip(package / "labels.json")
    flip(package / "model.onnx")
    found = re.findall(r"^error: (\S+):", run("verify", package).output, re.M)
    assert found == [str(package / name) for name in ("labels.json", "model.onnx", "extra")]


def test_a_folder_that_is_not_the_packages_is_named_once(package: Path) -> None:
    """An environment that somebody made in the package; what lies in the package's own folders is named by itself."""
    (package / ".venv/lib").mkdir(parents=True)
    for number in range(20):
        (package / f".venv/lib/{number}.py").write_text("")
    (package / ".venv/python").symlink_to(sys.executable)
    (package / "linked").mkdir()
    (package / "linked/python").symlink_to(sys.executable)
    (package / "empty/folder").mkdir(parents=True)
    for name in ("clients", "triton/fmkt-student"):
        (package / name).mkdir(exist_ok=True)
        (package / name / "notes.txt").write_text("")
    lines = [line for line in run("verify", package).output.splitlines() if line.startswith("error: ")]
    assert all(line.endswith("; it does not belong to the package; move it elsewhere") for line in lines)
    assert [line.removeprefix(f"error: {package}/").split(":")[0] for line in lines] == [
        ".venv",
        "clients/notes.txt",
        "linked",
        "triton/fmkt-student/notes.txt",
    ]


def test_a_picture_of_too_many_pixels_is_told_without_the_pipelines_parameter(package: Path, tmp_path: Path) -> None:
    Image.new("1", (10000, 9000)).save(tmp_path / "large.png")
    result = run("predict", package, str(tmp_path / "large.png"))
    assert result.exit_code == 1
    assert "large.png: has 10000 x 9000 pixels, allowed are 80 million; scale it down" in result.output
    assert "prepare_data" not in result.output


@pytest.mark.parametrize("names", [["a"], [], {"a": 0}, "zero", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], None])
@pytest.mark.parametrize("command", ["verify", "predict", "serve", "benchmark", "build-engine"])
def test_labels_that_do_not_fit_the_outputs_are_refused(command: str, names: object, package: Path) -> None:
    (package / "labels.json").write_text(json.dumps({"labels": names}))
    write_sums(package)
    refused(run(command, package, *(["x.png"] if command == "predict" else [])), ".json: not as a package has it")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"dtype": "uint8"}, "takes image (float32) and returns logits, expected image (uint8)"),
        ({"name": "picture"}, "expected picture (float32)"),
        ({"shape": ["batch", 3, 16, 16]}, "does not take one image of [3, 16, 16]"),
        ({"shape": ["batch", 1, 8, 8]}, "does not take one image of [1, 8, 8]"),
    ],
)
def test_a_signature_that_is_not_the_files_is_refused(change: dict[str, Any], said: str, package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    taken = manifest["signature"]["input"]
    taken.update(change)
    manifest.update(image_size=taken["shape"][2:], input=taken["dtype"])
    (package / "manifest.json").write_text(json.dumps(manifest))
    described = json.loads((package / "preprocessing.json").read_text()) | {"image_size": taken["shape"][2:]}
    (package / "preprocessing.json").write_text(json.dumps(described))
    write_sums(package)
    for command, words in (("verify", []), ("predict", ["x.png"])):
        refused(run(command, package, *words), "model.onnx: ", said)


@pytest.mark.parametrize("name", ["images", "logits"])
def test_samples_of_another_network_are_refused(name: str, package: Path) -> None:
    path = package / "samples.safetensors"
    tensors = load_file(path)
    for changed in ({name: tensors[name][:0]}, {name: tensors[name][:, :2]}):
        save_file({key: value.copy() for key, value in (tensors | changed).items()}, path)
        write_sums(package)
        refused(run("verify", package), "samples.safetensors: holds {", "expected at least one image")
    save_file({key: value for key, value in tensors.items() if key != "logits"}, path)
    write_sums(package)
    refused(run("verify", package), "samples.safetensors: holds {")


def test_sums_of_files_elsewhere_are_refused(package: Path) -> None:
    sums = package / "SHA256SUMS"
    for name in ("../secret", "/etc/hostname"):
        text = sums.read_text()
        sums.write_text(f"{text}{'0' * 64}  {name}\n")
        refused(run("verify", package), f"names {name!r}, which lies outside of the package")
        sums.write_text(text)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda manifest: manifest.update(task="dreams"), "unknown task 'dreams'; known: classification"),
        (lambda manifest: manifest.pop("name"), "has no name"),
        (lambda manifest: manifest.update(files=[]), "not as a package has it"),
        (lambda manifest: manifest["signature"]["input"].update(dtype="float64"), "unknown types"),
        (lambda manifest: manifest["signature"]["input"].update(shape=["batch", 3]), "an input that is no image"),
        (lambda manifest: manifest["signature"].pop("outputs"), "expected an object"),
        (lambda manifest: manifest["signature"].update(outputs=[]), "a network has outputs"),
        (lambda manifest: manifest["signature"].update(outputs=2 * manifest["signature"]["outputs"]), "of its own"),
        (lambda manifest: manifest["signature"]["input"].update(shape=["batch", 3, 8, 8.5]), "whole numbers"),
        (lambda manifest: manifest["signature"]["input"].update(shape=["batch", 3, True, 8]), "whole numbers"),
        (lambda manifest: manifest["signature"]["input"].update(shape=["batch", 3, 8, 10**9]), "whole numbers"),
        (lambda manifest: manifest["signature"]["input"].update(shape=None), "shape: got None, expected a list"),
        (lambda manifest: manifest["signature"]["outputs"][0].update(name=3), "name: got 3, expected a text"),
        (lambda manifest: manifest["signature"]["outputs"][0].update(name="scores"), "scores float32 [10]; of class"),
        (lambda manifest: manifest["signature"]["outputs"][0].update(dtype="int32"), "logits int32 [10]; of class"),
        (lambda manifest: manifest.update(image_size=[-8, 8]), "image_size.0: got -8, expected 1 or more"),
        (lambda manifest: manifest["files"].pop("model.onnx"), "fp32 is always among them"),
        (lambda manifest: manifest.update(files={}), "fp32 is always among them"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused(change: Callable[[Any], Any], said: str, package: Path) -> None:
    manifest = json.loads((package / "manifest.json").read_text())
    change(manifest)
    (package / "manifest.json").write_text(json.dumps(manifest))
    write_sums(package)
    refused(run("predict", package, "x.png"), "manifest.json: not as a package has it", said)


def test_an_open_package_says_what_it_holds(package: Path) -> None:
    opened = Package.open(package)
    assert list(opened.files) == ["fp32", "fp16", "int8-cpu", "int8-trt"]
    assert (opened.name, opened.task.name, opened.image_size, opened.input_dtype) == (
        "fmkt-student",
        "classification",
        (8, 8),
        "float32",
    )
    assert opened.class_names == tuple("0123456789")
    assert opened.signature.output_names == ["logits"]
    assert len(opened.samples) == 8
    fp32, wider = (opened.gate("fp32", gpu_kernels=gpu).gate.max_difference for gpu in (False, True))
    assert fp32 is not None
    assert wider == pytest.approx(10 * fp32)
    assert opened.verified(["model.onnx"]) == [opened.file("fp32")]
    flip(package / "samples.safetensors")
    with pytest.raises(UserError, match=r"samples.safetensors: differs"):
        Package.open(package).samples  # noqa: B018
    preprocessing = json.loads((package / "preprocessing.json").read_text())
    assert preprocessing["output"] == {"name": "logits", "dtype": "float32"}
    assert preprocessing["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 10]}]


def test_files_that_agree_with_their_sums_must_also_compute_what_was_trained(package: Path) -> None:
    """A network put in another's place, sums and all."""
    shutil.copyfile(package / "model.int8-trt.onnx", package / "model.onnx")
    write_sums(package)
    result = run("verify", package)
    assert result.exit_code == 1
    assert "model.onnx, packaged samples, 8 images: outputs differ by" in result.output


def test_what_lies_beside_engines_is_strange_and_so_are_links(package: Path) -> None:
    (package / "engines").mkdir()
    (package / "engines/model.txt").write_bytes(b"no engine")
    refused(run("verify", package), "engines/model.txt: not listed in SHA256SUMS")
    (package / "engines/model.txt").unlink()
    (package / "elsewhere").symlink_to(package / "README.md")
    refused(run("verify", package), "elsewhere: a link; a package has none")


def test_a_missing_extra_is_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.serving.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = run("serve", package)
    refused(result, "uvicorn", "is not installed; pip install -r requirements-serve.txt")


def test_a_prediction_takes_no_changed_labels(package: Path, pictures: list[Path]) -> None:
    labels = json.loads((package / "labels.json").read_text())["labels"]
    (package / "labels.json").write_text(json.dumps({"labels": labels[::-1]}))
    refused(run("predict", package, str(pictures[0])), "labels.json: differs from its SHA-256")


def test_the_student_of_another_package_is_no_reference(package: Path, bench: Bench) -> None:
    refused(run("benchmark", package, "--student", str(bench.folder / "package")), "network.json: no such file")
    manifest = json.loads((package / "manifest.json").read_text()) | {"num_steps": None}
    (package / "manifest.json").write_text(json.dumps(manifest))
    write_sums(package)
    said = run("benchmark", package, "--student", str(bench.folder / "student"))
    refused(said, "student: is not the student of")


def test_what_is_no_package_is_said_so(tmp_path: Path, bench: Bench) -> None:
    refused(run("predict", tmp_path / "none", "x.png"), "none: no such folder; give that of a package")
    refused(run("predict", tmp_path, "x.png"), "manifest.json: no such file")
    refused(run("predict", bench.folder / "onnx", "x.png"), "SHA256SUMS: cannot be read", "is no package")


def test_the_benchmark_compares_every_file_with_the_plain_student(package: Path, bench: Bench) -> None:
    words = ["--student", str(bench.folder / "student"), "--batch", "1", "--batch", "3", "--no-compiled"]
    result = run("benchmark", package, *words, "--iterations", "10", "--warmup", "1")
    assert result.exit_code == 0, result.output
    rows = [re.split(r"  +", line) for line in result.stdout.splitlines() if re.search(r"\d$", line)]
    assert [row[0] for row in rows[:6]] == [
        "plain student, onnx",
        "deployed, torch eager",
        "fp32, cpu",
        "fp16, cpu",
        "int8-cpu, cpu",
        "int8-trt, cpu",
    ]
    assert [row[1] for row in rows] == ["1"] * 6 + ["3"] * 6
    for row in rows:
        batch, (p50, p95, p99), (speed, ratio) = int(row[1]), map(float, row[2:5]), row[5:]
        base = next(float(other[2]) for other in rows if other[1] == row[1])
        assert 0 < p50 <= p95 <= p99
        rounded = 0.0006  # milliseconds are shown with three digits
        expected = 1000 * batch / p50
        assert float(speed.replace(",", "")) == pytest.approx(expected, abs=1 + expected * rounded / (p50 - rounded))
        expected = p50 / base
        of_both = rounded / p50 + rounded / (base - rounded)
        assert float(ratio) == pytest.approx(expected, abs=0.01 + expected * of_both)
    assert "10 calls after 1" in result.stdout
    for size, line in zip((1, 3), result.stdout.splitlines()[-2:], strict=True):
        ours = [row for row in rows if row[1] == str(size) and row[0].endswith(", cpu")]
        named = re.match(rf"fastest file on this host at batch {size}: model\.(\S+\.|)onnx \((\d+\.\d+) ms", line)
        assert named is not None
        plain, *others = ours
        (best,) = (row for row in ours if row[0] == f"{named[1].rstrip('.') or 'fp32'}, cpu")
        assert best[2] == named[2]
        assert (" times as fast as model.onnx" in line) == (best is not plain)
        if best is plain:
            assert all(float(row[3]) >= float(plain[2]) for row in others), "none is told to be faster"
        else:
            assert float(best[3]) <= float(plain[2])
    alone = run("benchmark", package, "--iterations", "10", "--batch", "1")
    assert "plain student" not in alone.stdout
    refused(run("benchmark", package, "--provider", "cuda"), "--provider: got 'cuda', which is not available here")
    assert run("benchmark", package, "--provider", "gpu").exit_code == 2


def test_the_model_card_holds_every_file_and_every_point(package: Path, bench: Bench) -> None:
    card = (package / "README.md").read_text()
    manifest = json.loads((package / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        assert re.search(rf"^\| `{name}` \| {entry['bytes']:,} \|", card, re.MULTILINE)
    points = json.loads((package / "tradeoff.json").read_text())["points"]
    assert [(point["num_steps"], point["precision"]) for point in points] == [
        (2, "fp32"),
        (2, "int8-cpu"),
        (4, "fp32"),
        (4, "int8-cpu"),
    ]
    assert "no teacher" in card
    front = [p for p in points if p["on_the_front"]]
    assert front
    for point in front:
        assert not any(p["accuracy"] > point["accuracy"] and p["latency_ms"] < point["latency_ms"] for p in points)
    assert all(p["bytes"] > 0 and p["latency_ms"] > 0 for p in points)
    calibration = bench.json("calibration/calibration.json")
    plain, steps = calibration["plain"], calibration["num_steps"]
    assert f"| plain student, without sampling steps | {plain['num_parameters']:,} | {plain['macs']:,} | " in card
    (own,) = [point["macs"] for point in calibration["curve"] if point["num_steps"] == steps]
    assert re.search(rf"^\| ratio \| \d\.\d\dx \| {own / plain['macs']:.2f}x \| \d+\.\d\dx \|$", card, re.MULTILINE)
    assert (package / "tradeoff.svg").read_text().count("<svg") == 1
    assert manifest["int8_calibration"]["num_images"] > 0
    assert re.fullmatch("[0-9a-f]{64}", manifest["int8_calibration"]["split_sha256"])


def test_only_the_files_that_are_asked_for_go_along(bench: Bench) -> None:
    done = bench.run("package", CHANGES | {"package.precisions": ["int8-cpu"]}, out="lean")
    assert done.exit_code == 0, done.output
    lean, whole = bench.folder / "lean", bench.folder / "package"
    names = ["model.int8-cpu.onnx", "model.onnx"]
    assert sorted(path.name for path in lean.rglob("*.onnx")) == names, "each once"
    assert sorted(path.name for path in whole.rglob("*.onnx")) == [
        "model.fp16.onnx",
        "model.int8-cpu.onnx",
        "model.int8-trt.onnx",
        "model.onnx",
    ]
    manifest = json.loads((lean / "manifest.json").read_text())
    assert (sorted(manifest["files"]), sorted(manifest["gates"])) == (names, ["fp32", "int8-cpu"])
    assert set(manifest["left_out"]) == {"fp16", "int8-trt"}
    listed = {line.split("  ")[1] for line in (lean / "SHA256SUMS").read_text().splitlines()}
    assert {name for name in listed if name.endswith(".onnx")} == {*names}
    assert re.findall(r"^\| `(model\S*\.onnx)` \|", (lean / "README.md").read_text(), re.M) == names
    assert sorted(path.name for path in (lean / "triton").iterdir()) == [
        f"fmkt-student{suffix}" for suffix in ("", "-gpu", "-int8-cpu", "-tensorrt")
    ]
    assert run("verify", lean).exit_code == 0
    why = "it has fp32, int8-cpu (fp16 was left out: package.precisions does not name it)"
    refused(run("predict", lean, "--precision", "fp16", "x.png"), why)


@pytest.mark.parametrize("name", ["report", "package"])
def test_the_same_records_give_the_same_bytes_in_another_process_and_place(
    name: str, bench: Bench, tmp_path: Path
) -> None:
    """The stages need no PyTorch: what they tell is in the records."""
    ours = bench.folder / name
    shutil.copytree(bench.folder, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(name))
    other = Bench(tmp_path / "elsewhere", lambda changes: write_params(tmp_path / "elsewhere/params.yaml", changes))
    module, *words = other.command(name, CHANGES)
    code = f"import sys; sys.modules['torch'] = None; from {module} import main; main()"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "DVC_ROOT": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, env=environment, check=True)
    first, second = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (ours, other.folder / name)
    )
    assert first == second


def test_a_signed_package_is_the_same_but_for_its_signature(bench: Bench, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    result = bench.run("package", {**CHANGES, "package.signing_key": str(key)}, out=str(tmp_path / "signed"))
    assert result.exit_code == 0, result.output
    (tmp_path / "signers").write_text(f"me {key.with_name('key.pub').read_text()}")
    result = run("verify", tmp_path / "signed", "--allowed-signers", str(tmp_path / "signers"))
    assert "signed by me, key ED25519 SHA256:" in result.output
    plain, signed = (
        {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (bench.folder / "package", tmp_path / "signed")
    )
    assert signed.pop("SHA256SUMS.sig").startswith(b"-----BEGIN SSH SIGNATURE-----")
    cards = [files.pop("README.md") for files in (plain, signed)]
    assert b"Its sums are signed" in cards[1]
    assert b"It is not signed" in cards[0]
    assert plain.pop("SHA256SUMS") != signed.pop("SHA256SUMS"), "it has the sum of the card"
    assert signed == plain
