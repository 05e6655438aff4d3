"""A package of detections as the stage writes it from the records of others, and its model card."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from pipeline.core.errors import UserError
from pipeline.core.files import write_csv, write_json, write_text
from pipeline.core.likelihood_line import LIKELIHOOD
from pipeline.evaluation.summary import summarize
from pipeline.export.samples import write_samples
from pipeline.export.tensorrt.plan import EngineSettings
from pipeline.package.provenance import Commit
from pipeline.package.reader import Package
from pipeline.package.settings import PackageSettings
from pipeline.package.signing import NAMESPACE
from pipeline.package.sums import SUMS
from pipeline.package.writer import PICTURES, Records, write_package
from pipeline.runtimes.engine_file import describe_signature
from pipeline.tasks.gate import Gate
from stages.__main__ import main
from tests.detection_package import (
    CLASSES,
    COUNT,
    DETECTIONS,
    FACTS,
    HEIGHT,
    NUMBERS,
    SIGNATURE,
    TASK,
    WIDTH,
    make_model,
    samples,
)

SCORES = {"ap": 0.7483, "ap_standard_error": 0.011, "ap50": 0.966, "ap75": 0.9315, "ar100": 0.8}
SCORES |= {"ap_small": 0.61, "ap_medium": 0.7, "ap_large": 0.9}
NAME = "fmkt-student"
PARITY = {"max_abs": 1e-4, "spread": None, "difference": None, "agreement": 1.0, "total": 612, "counted": "detections"}
TENSORS = {"class_logits": {"max_abs": 1e-5, "spread": 2.0, "difference": 5e-6}}
TENSORS |= {"box_regression": {"max_abs": 1e-5, "spread": 1.0, "difference": 1.3e-5}}
POINT = {"num_steps": None, "macs": 1_000_000, **SCORES}
POINTS = [
    {"num_steps": num_steps, "precision": precision, "bytes": 1, "latency_ms": 1.5, "on_the_front": front, **SCORES}
    for num_steps, precision, front in [(None, "fp32", True), (None, "fp16", True), (4, "fp32", False)]
]


def manifest(model: Path) -> dict[str, Any]:
    """Return what the export says of the file ``model``."""
    whole = {**PARITY, **SCORES, "drop": 0.0, "num_images": 200}
    entry = {
        "precision": "fp32",
        "bytes": model.stat().st_size,
        "gates": {"deployed": {"body": {"num_images": 64, "tensors": TENSORS}, "test_split": whole}},
        "tensorrt_static_check": {"10": {"accepted": True}, "11": {"accepted": True}},
    }
    return {
        "files": {model.name: entry},
        "gates": {"fp32": asdict(Gate())},
        "signature": describe_signature(SIGNATURE),
        "image_size": [HEIGHT, WIDTH],
        "input": "float32",
        "num_steps": None,
        "opset": 20,
        "task": "detection",
        **FACTS,
    }


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """Return the folder of a run that has come to the package."""
    root, onnx = tmp_path / "run", tmp_path / "run/artifacts/onnx"
    onnx.mkdir(parents=True)
    make_model(onnx / "model.onnx")
    write_samples(onnx, samples())
    write_json(onnx / "manifest.json", manifest(onnx / "model.onnx"))
    data = {"task": "detection", "classes": list(CLASSES.names), "category_ids": list(CLASSES.ids or ())}
    data |= {"image_size": [HEIGHT, WIDTH], "mean": [0.5] * 3, "std": [0.25] * 3, "resize": "letterbox"}
    data |= {"storage": "packed", "class_counts": {"train": [1, 2, 3]}, "source": "coco", "sizes": {"test": 200}}
    data |= {"sha256": {"test.safetensors": "0" * 64}}
    write_json(root / "artifacts/data/data.json", data)
    images = {"name": "photos_2025", "newest_file": "2025-11-30", "carried_by": None}
    write_json(root / "artifacts/environment.json", {"inputs": {"package": {"name": NAME, "data": images}}})
    calibration = {"num_steps": None, "reason": "no flow", "num_images": 80, "curve": [POINT]}
    write_json(root / "artifacts/calibration/calibration.json", calibration)
    tradeoff = {"points": POINTS, "plain": None, "num_images": 200, "network": "0", "protocol": "one thread"}
    write_json(root / "artifacts/tradeoff/tradeoff.json", tradeoff)
    latency = {"latency_ms": {"1": {"p50": 1.5}}}
    evaluation = {"status": "evaluated", "precision": "fp32", **SCORES, "num_images": 200, "parity": PARITY}
    write_json(root / "reports/evaluation/onnx.json", {**evaluation, **latency, "precisions": {}})
    teacher = {"num_parameters": 140_607, "macs": 2_000_000, "test_ap": 0.751, "test_ap_standard_error": 0.01}
    write_json(root / "reports/teacher.json", teacher)
    write_json(root / "reports/student.json", {"num_parameters": 81_303})
    network = {"method": "none", "backbone": "resnet8_x0_5", "num_parameters": 81_303}
    write_json(root / "artifacts/student/network.json", network)
    for name in PICTURES:
        write_text(root / "artifacts/report/card" / name, name)
    write_csv(root / "artifacts/report/card" / LIKELIHOOD, ["flow"], [])
    rows = [{"class": name, "ap": "0.7"} for name in CLASSES.names]
    write_csv(root / "artifacts/report/card/classes.csv", ["class", "ap"], rows)
    return root


def pack(root: Path, **settings: Any) -> Package:
    """Write the package of the run in ``root``; ``settings`` are of the section package."""
    artifacts, reports = root / "artifacts", root / "reports"
    folder = artifacts / "package"
    folder.mkdir()
    records = Records(
        onnx=artifacts / "onnx",
        calibration=artifacts / "calibration",
        data=artifacts / "data",
        tradeoff=artifacts / "tradeoff",
        report=artifacts / "report",
        evaluation=reports / "evaluation/onnx.json",
        teacher=reports / "teacher.json",
        student=reports / "student.json",
        environment=artifacts / "environment.json",
    )
    asked = PackageSettings(**{"description": "A compact detector.", "version": "1.2.0", "licence": "mit", **settings})
    write_package(folder, asked, EngineSettings(), records, Commit("c" * 40, ("params.yaml",)))
    return Package.open(folder)


def test_the_stage_writes_a_package_that_is_right(run_folder: Path) -> None:
    package = pack(run_folder)
    assert (package.classes, package.task.least_score) == (CLASSES, DETECTIONS["score_threshold"])
    done = CliRunner().invoke(main, ["verify", "--package", str(package.folder)])
    assert done.exit_code == 0, done.output
    assert "triton/fmkt-student/config.pbtxt" in package.sums


def test_the_card_says_where_the_package_comes_from(run_folder: Path) -> None:
    card = (pack(run_folder).folder / "README.md").read_text()
    assert card.startswith(f"# {NAME} 1.2.0\n")
    assert "- licence: MIT\n" in card
    assert f"- commit: {'c' * 40}, with changes in params.yaml\n" in card
    assert "- images: photos\\_2025 (source coco): 200 in test\n- newest file of the images: 2025-11-30 (UTC)\n" in card
    assert f"- SHA-256 of test: {'0' * 64}\n" in card


def test_the_card_tells_what_was_measured_from_what_is_here(run_folder: Path) -> None:
    card = (pack(run_folder).folder / "README.md").read_text()
    rows = [line.split(" | ") for line in card.splitlines() if "| 1.500 |" in line]
    assert [(*row[:2], *row[-2:]) for row in rows] == [
        ("| -", "fp32", "yes", "`model.onnx` |"),
        ("| -", "fp16", "yes", " |"),
        ("| 4", "fp32", "", " |"),
    ]


@pytest.mark.parametrize("key", [None, "~/.ssh/id_ed25519"])
def test_the_card_says_whether_the_package_is_signed(key: str | None, run_folder: Path) -> None:
    card = " ".join((pack(run_folder, signing_key=key).folder / "README.md").read_text().split())
    assert ("It is not signed" in card) == (key is None)
    command = f"`ssh-keygen -Y verify -f allowed_signers -I NAME -n {NAMESPACE} -s {SUMS}.sig < {SUMS}`"
    assert (command in card) == (key is not None)


def test_names_of_classes_stand_in_the_card_as_they_are(run_folder: Path) -> None:
    rows = [{"class": "a|b <c> _d_", "ap": "0.7"}]
    write_csv(run_folder / "artifacts/report/card/classes.csv", ["class", "ap"], rows)
    card = (pack(run_folder).folder / "README.md").read_text()
    assert "\n| a\\|b \\<c\\> \\_d\\_ | 0.7 |\n" in card


def test_the_card_says_what_boxes_are_and_how_good(run_folder: Path) -> None:
    card = (pack(run_folder).folder / "README.md").read_text()
    assert "| AP, 200 test images, with its standard error | 74.83% +/- 1.10 | 75.10% +/- 1.00 |" in card
    for title, value in TASK.card_rows(SCORES):
        assert f"| {title} | {value} | |" in card
    assert re.search(
        r"^\| `model\.onnx` \| [\d,]+ \| 74\.83% \+/- 1\.10 \| 1\.3e-05 \| 100\.00% \| accepted", card, re.M
    )
    assert "over 64 test images" in card
    assert "The same answer is the share of\ndetections that the trained network gives too, over all 200." in card
    assert "| `detection_boxes` | float32 | batch, 5, 4 |" in card
    assert "| boxes: space | pixels of the network's input |" in card
    assert "| detections: score threshold | 0.1 |" in card
    assert "[labels.json](labels.json) has the name of each class and its id in the data" in card
    assert "$" not in card


@pytest.mark.parametrize("ids", [CLASSES.ids, None], ids=["with ids", "names alone"])
def test_the_cards_code_gives_boxes_in_the_pixels_of_the_image(run_folder: Path, ids: tuple[int, ...] | None) -> None:
    data = run_folder / "artifacts/data/data.json"
    write_json(data, json.loads(data.read_text()) | {"category_ids": None if ids is None else list(ids)})
    package = pack(run_folder)
    (code,) = re.findall(r"```python\n(.*?)```", (package.folder / "README.md").read_text(), re.DOTALL)
    path = package.folder / "image.png"
    Image.new("RGB", (300, 100), (255, 255, 255)).save(path)
    home = run_folder / "home"
    home.mkdir()
    outside = {name: value for name, value in os.environ.items() if name not in {"ORT_DISABLE_TELEMETRY", "PYTHONPATH"}}
    command, variables = [sys.executable, "-c", code], {**outside, "HOME": str(home)}
    done = subprocess.run(command, cwd=package.folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(home.iterdir()), "nothing is kept, such as what ONNX Runtime would send"
    lines = [re.fullmatch(r"(.+?) (\d+) ([\d.]+)" + 4 * r" ([\d.]+)", line) for line in done.stdout.splitlines()]
    found = [(line[1], int(line[2]), float(line[3]), [float(line[i]) for i in range(4, 8)]) for line in lines if line]
    words = ["predict", "--package", str(package.folder), "--json", str(path)]
    things = json.loads(CliRunner().invoke(main, words).stdout)["detections"]
    assert len(found) == len(things) == COUNT
    assert [name for name, *_ in found] == [CLASSES.names[i] for i in NUMBERS[:COUNT]]
    for (name, number, score, box), thing in zip(found, things, strict=True):
        assert (name, number) == (thing["class"], CLASSES.names.index(name) if ids is None else thing["category_id"])
        assert score == pytest.approx(thing["score"], abs=1e-5)
        np.testing.assert_allclose(box, thing["box"], atol=0.006)


def test_the_summary_speaks_of_ap(run_folder: Path) -> None:
    text = summarize(run_folder)
    assert re.search(r"^AP +75\.10% \+/- 1\.00 +74\.83% \+/- 1\.10$", text, re.MULTILINE)
    assert re.search(r"^ONNX file +bytes +AP +same answer", text, re.MULTILINE)
    assert re.search(r"^model\.onnx +[\d,]+ +74\.83% +100\.00% +1\.500 +accepted$", text, re.MULTILINE)
    assert "100.00% of 612 detections" in " ".join(text.split())


@pytest.mark.parametrize("ids", [[17, 18], [17, 18, 17]])
def test_ids_that_are_not_those_of_the_classes_are_refused(ids: list[int], run_folder: Path) -> None:
    path = run_folder / "artifacts/data/data.json"
    write_json(path, json.loads(path.read_text()) | {"category_ids": ids})
    with pytest.raises(UserError, match=r"data.json: category_ids are .*one of its own for each class.*prepare_data"):
        pack(run_folder)
