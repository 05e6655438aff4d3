"""Stages as commands, one at a time, on little data."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.networks.saved import load_network
from tests.helpers import ROOT, refused
from workbench.bench import Bench

WriteParams = Callable[[dict[str, Any]], Path]


@pytest.fixture
def bench(tmp_path: Path, params_file: WriteParams) -> Bench:
    """Return a bench with prepared data."""
    bench = Bench(tmp_path, params_file)
    bench.prepare()
    return bench


def test_given_weights_are_taken_as_they_are_with_0_epochs(bench: Bench) -> None:
    assert bench.teach({}).exit_code == 0
    trained, accuracy = load_network(bench.folder / "teacher")[0], bench.json("teacher.json")["test_accuracy"]
    torch.save(trained.state_dict(), bench.folder / "given.pt")
    result = bench.teach({"train_teacher.weights": str(bench.folder / "given.pt"), "train_teacher.training.epochs": 0})
    assert result.exit_code == 0, result.output
    assert "epoch 1" not in result.output
    assert bench.json("teacher.json")["test_accuracy"] == accuracy
    assert len((bench.folder / "teacher.csv").read_text().splitlines()) == 1, "a header, and no epochs"


def test_a_training_that_diverges_is_named_in_the_log_and_the_report(bench: Bench) -> None:
    wild = {"train_teacher.training.optimizer.learning_rate": 100.0, "train_teacher.training.epochs": 3}
    result = bench.teach(wild)
    assert result.exit_code == 0, result.output
    warnings = bench.json("teacher.json")["warnings"]
    assert warnings[0].startswith("the training of the teacher has diverged (cross_entropy ")
    assert "train_teacher.training.optimizer.learning_rate" in warnings[0]
    assert all(warning in result.stderr for warning in warnings)
    assert "epoch 2 of 3: the training of the network has diverged" in result.stderr, "early, while it runs"


def test_a_given_teacher_with_its_classes_in_another_order_is_named(bench: Bench) -> None:
    assert bench.teach({"train_teacher.training.epochs": 6}).exit_code == 0
    assert bench.json("teacher.json")["warnings"] == []
    state = load_network(bench.folder / "teacher")[0].state_dict()
    state |= {name: value.roll(1, 0) for name, value in state.items() if name.startswith("head.")}
    torch.save(state, bench.folder / "rolled.pt")
    taken = {"train_teacher.weights": str(bench.folder / "rolled.pt"), "train_teacher.training.epochs": 0}
    assert bench.teach(taken).exit_code == 0
    (warning,) = bench.json("teacher.json")["warnings"]
    assert warning.startswith("the given teacher has an accuracy of ")
    assert "its classes must stand in the order of data.json" in warning


def test_a_student_that_outdoes_its_teacher_is_named(bench: Bench) -> None:
    assert bench.teach({"train_teacher.training.optimizer.learning_rate": 1e-6}).exit_code == 0
    labels_alone = {"distill_student.method": "metric", "distill_student.loss_weight": 0.01}
    result = bench.distill(labels_alone | {"distill_student.training.min_epoch_steps": 40})
    assert result.exit_code == 0, result.output
    warnings = bench.json("student.json")["warnings"]
    assert len(warnings) == 1
    assert re.match(r"the teacher \(accuracy .*%\) is worse than its student \(", warnings[0])


def test_a_network_that_guesses_is_named_when_it_is_evaluated(bench: Bench) -> None:
    none = {"distill_student.method": "none", "distill_student.training.optimizer.learning_rate": 1e-9}
    (bench.folder / "environment.json").write_text(json.dumps({"inputs": {"teacher": "not needed"}}))
    for run in (bench.distill, bench.calibrate):
        assert run(none).exit_code == 0
    result = bench.evaluate("torch", "student", none)
    assert result.exit_code == 0, result.output
    for name in ("torch.json", "torch_scores.json"):
        (warning,) = bench.json(name)["warnings"]
        assert warning.startswith("on the test split the deployed network ")
    assert warning in result.stderr


def test_wrong_weights_and_backbones_end_with_two_and_touch_nothing(bench: Bench) -> None:
    assert bench.teach({}).exit_code == 0
    before = (bench.folder / "teacher/model.safetensors").read_bytes()
    (bench.folder / "given.pt").write_bytes(b"no weights")
    for changes, words in (
        ({"train_teacher.weights": str(bench.folder / "given.pt")}, "given.pt: no readable weights"),
        ({"train_teacher.backbone": "resnet9"}, "train_teacher.backbone: unknown backbone 'resnet9'"),
        ({"base.device": "cuda:0"}, "base.device: got 'cuda:0', but PyTorch sees 0 CUDA device(s)"),
    ):
        if "cuda" in words and torch.cuda.is_available():
            continue
        result = bench.teach(changes)
        assert result.exit_code == 2
        assert words in result.output
        assert len([line for line in result.output.splitlines() if line.startswith("error: ")]) == 1
    assert (bench.folder / "teacher/model.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda value: value * float("nan"), "is not finite; its training diverged"),
        (lambda value: value.to("meta"), "is no plain tensor of numbers"),
        (lambda value: value.to(torch.complex64), "is no plain tensor of numbers"),
        (lambda value: value.to_sparse(), "is no plain tensor of numbers"),
    ],
)
def test_odd_tensors_are_no_teacher(bench: Bench, spoil: Callable[[torch.Tensor], torch.Tensor], words: str) -> None:
    given = bench.folder / "given.pt"
    torch.save({"good": torch.ones(2), "odd": spoil(torch.ones(3))}, given)
    result = bench.teach({"train_teacher.weights": str(given)})
    refused(result, f"given.pt: odd {words}")


def test_a_missing_teacher_ends_with_two(bench: Bench) -> None:
    result = bench.distill({})
    assert result.exit_code == 2
    assert "teacher/network.json: no such file; run the stage that writes it" in result.output


def test_a_student_is_no_teacher(bench: Bench) -> None:
    assert bench.teach({}).exit_code == 0
    assert bench.distill({}).exit_code == 0
    (bench.folder / "student").rename(bench.folder / "taken")
    (bench.folder / "teacher").rename(bench.folder / "old")
    (bench.folder / "taken").rename(bench.folder / "teacher")
    result = bench.distill({})
    assert result.exit_code == 2
    assert "teacher: holds a flow_student, which cannot teach" in result.output


def test_a_failing_gate_ends_with_one_and_leaves_no_export(bench: Bench) -> None:
    assert bench.distill({"distill_student.method": "none"}).exit_code == 0
    assert bench.calibrate({}).exit_code == 0
    result = bench.export({"export_onnx.gates.fp32.max_difference": 1e-12})
    assert result.exit_code == 1
    assert "error: model.onnx, test split, 359 images: outputs differ by" in result.output
    assert "(export_onnx.gates.fp32.max_difference)" in result.output
    assert "where training warned, mend that first" in result.output
    assert not (bench.folder / "onnx").exists()


def test_an_export_of_another_student_fails_the_evaluation(bench: Bench) -> None:
    learn = {"distill_student.method": "none", "distill_student.training.epochs": 8}
    assert bench.distill(learn).exit_code == 0
    assert bench.calibrate({}).exit_code == 0
    assert bench.distill({"distill_student.method": "none", "base.seed": 3}).exit_code == 0
    assert bench.export({}).exit_code == 0
    assert bench.distill(learn).exit_code == 0
    result = bench.evaluate("onnx", "onnx", {})
    assert result.exit_code == 1
    assert "error: evaluate, fp32, test split, 359 images: outputs differ by" in result.output
    assert not (bench.folder / "onnx.json").exists()


@pytest.mark.parametrize("variable", ["DVC_STAGE", "TORCHELASTIC_RUN_ID"])
def test_a_stage_ends_with_what_started_it_even_before_it_has_imported_what_it_needs(variable: str) -> None:
    stage = "import stages, os, time; print(os.getpid(), flush=True); time.sleep(60)"
    line = f"exec {sys.executable} -c {shlex.quote(stage)}"
    dvc = f"import subprocess; subprocess.run(['/bin/sh', '-c', {line!r}])"
    environment = {**os.environ, variable: "x"}
    with subprocess.Popen([sys.executable, "-c", dvc], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 20
    while (running := Path(f"/proc/{pid}/exe").exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if running:
        os.kill(pid, signal.SIGKILL)
    assert not running
