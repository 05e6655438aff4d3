"""Engines from an export and from a package: all of it but TensorRT, whose place ONNX Runtime takes here."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from pipeline.tasks.classification.parity import Gate
from safetensors.numpy import save_file
from torch import nn

from pipeline import engines, package_engine
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import write_json
from pipeline.export.onnx.exporter import export_onnx
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.tensorrt.plan import EnginePlan
from pipeline.package.reader import read_gate
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.tensorrt import open_engine
from stages.commands.build_engine import build_engine as command
from tests.helpers import ROOT, refused

HOST = {
    "buildable": True, "reason": "", "gpu": "NVIDIA Orin (nvgpu)", "compute_capability": "8.7", "tensorrt": "10.3.0",
    "tensorrt_major": 10, "polygraphy": "0.53.6",
}  # fmt: skip
SETTINGS = {
    "min_batch": 2, "opt_batch": 4, "max_batch": 8, "optimization_level": 3, "workspace_mib": 64,
    "version_compatible": False, "hardware_compatibility": "none", "timing_cache": True,
}  # fmt: skip
GATES = {
    "fp32": {"max_abs_diff": 1e-4, "max_relative_diff": 0.0, "min_top1_agreement": 1.0, "max_drop": 0.0},
    "fp16": {"max_abs_diff": 1e-2, "max_relative_diff": 0.0, "min_top1_agreement": 0.9, "max_drop": 0.1},
}
STRICT = Gate(**GATES["fp32"])
LOOSE = Gate(max_abs_diff=None, max_relative_diff=0.0, min_top1_agreement=0.0, max_drop=1.0)


class OnnxInItsPlace:
    """What ``TensorrtRuntime`` is to ``pipeline.export.tensorrt.engines``, over an ONNX file that poses as a plan."""

    def __init__(self, plan: bytes, *, description: dict[str, Any]) -> None:
        assert description["plan_sha256"] == hashlib.sha256(plan).hexdigest()
        self.session = OnnxRuntime(Path(plan.decode()))
        self.input_dtype = self.session.input_dtype
        self.batches: list[int] = []

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return self.session.infer(images)

    def describe(self) -> str:
        return self.session.describe()


def plan_of(plan: EnginePlan, **_: Any) -> bytes:
    return str(plan.onnx).encode()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Make this host one that can build, and return the arguments of each build."""
    asked: list[dict[str, Any]] = []

    def build(plan: EnginePlan, **arguments: Any) -> bytes:
        asked.append({"plan": plan, **arguments})
        return plan_of(plan)

    monkeypatch.setattr(engines, "build_plan", build)
    monkeypatch.setattr(engines, "TensorrtRuntime", OnnxInItsPlace)
    monkeypatch.setattr(package_engine, "probe_tensorrt", lambda: HOST)
    return asked


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ONNX export of a small network in two precisions, with samples."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    ).eval()
    folder = tmp_path_factory.mktemp("export")
    export_onnx(network, folder / "model.onnx", image_size=(8, 6), opset=20, metadata={})
    convert_to_half(folder / "model.onnx", folder / "model.fp16.onnx")
    images = np.random.default_rng(0).integers(0, 256, (21, 3, 8, 6), dtype=np.uint8)
    with torch.no_grad():
        logits = network(torch.from_numpy(images).float() / 255).numpy()
    save_file({"images": images, "labels": logits.argmax(axis=1), "logits": logits}, folder / "samples.safetensors")
    files = {"model.onnx": {"precision": "fp32"}, "model.fp16.onnx": {"precision": "fp16"}}
    write_json(folder / "manifest.json", {"files": files, "gates": GATES, "image_size": [8, 6], "input": "float32"})
    return folder


def seal(package: Path) -> None:
    """Write the package's sums anew."""
    files = sorted(path for path in package.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (package / "SHA256SUMS").write_text("".join(sums))


@pytest.fixture
def package(tmp_path: Path, export: Path) -> Path:
    """Return a package with a Triton repository."""
    folder = tmp_path / "package"
    folder.mkdir()
    for path in export.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text()) | {"name": "small"}
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "labels.json", {"labels": list("abcde")})
    write_json(folder / "engine.json", {"precisions": ["fp32"], **SETTINGS, "min_batch": 1})
    (folder / "triton/small-tensorrt").mkdir(parents=True)
    (folder / "triton/small-tensorrt/config.pbtxt").write_text('name: "small-tensorrt"\nmax_batch_size: 8\n')
    seal(folder)
    return folder


@pytest.fixture
def build(package: Path, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the command on the package with more options."""

    def run(*options: str) -> Result:
        common = ["--package", str(package), "--cache", str(tmp_path / "cache")]
        return CliRunner().invoke(command, [*common, *options])

    return run


def test_a_package_becomes_a_proved_engine(
    build: Callable[..., Result], package: Path, tmp_path: Path, device: list[dict[str, Any]]
) -> None:
    result = build()
    assert result.exit_code == 0, result.output
    plan = package / "engines/model.plan"
    about = json.loads((package / "engines/model.plan.json").read_text())
    assert about["plan_sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert about["onnx_sha256"] == hashlib.sha256((package / "model.onnx").read_bytes()).hexdigest()
    assert about["input"] == {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 6]}
    assert about["output"] == {"name": "logits", "dtype": "float32", "shape": ["batch", 5]}
    assert about["batch"] == {"min": 1, "opt": 4, "max": 8}
    assert about["options"] == {key: value for key, value in SETTINGS.items() if not key.endswith("_batch")}
    facts = ("gpu", "compute_capability", "tensorrt", "precision", "plan", "onnx")
    assert [about[key] for key in facts] == ["NVIDIA Orin (nvgpu)", "8.7", "10.3.0", "fp32", "model.plan", "model.onnx"]
    assert (about["accuracy"], about["accuracy_drop"], about["num_images"]) == (1.0, 0.0, 21)
    assert about["parity"]["max_abs"] < 1e-5
    assert about["parity"]["top1_agreement"] == 1.0
    assert set(about["latency_ms"]) == {"1", "4", "8"}
    assert (package / "triton/small-tensorrt/1/model.plan").read_bytes() == plan.read_bytes()
    assert "fp32, TensorRT 10.3.0, NVIDIA Orin (nvgpu)" in result.output
    assert "100.00% of 21 samples" in result.output
    assert device[0]["cache"] == tmp_path / "cache/tensorrt/NVIDIA-Orin-nvgpu-10.3.0.timing"
    assert device[0]["hints"] == []


def test_options_replace_the_packages_settings(
    build: Callable[..., Result], package: Path, tmp_path: Path, device: list[dict[str, Any]]
) -> None:
    options = ["--precision", "fp16", "--out", str(tmp_path / "there"), "--max-batch", "16", "--version-compatible"]
    options += ["--hardware-compatibility", "ampere_plus", "--no-timing-cache", "--optimization-level", "5"]
    result = build(*options)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "there/model.fp16.plan.json").read_text())
    assert (about["batch"]["max"], about["precision"], about["onnx"]) == (16, "fp16", "model.fp16.onnx")
    assert about["options"] == {
        "version_compatible": True, "hardware_compatibility": "ampere_plus", "timing_cache": False,
        "optimization_level": 5, "workspace_mib": 64,
    }  # fmt: skip
    assert device[0]["cache"] is None
    assert not list(package.rglob("*.plan")), "with --out the package stays as it is"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int8-trt"], ["has no file of precision 'int8-trt'", "fp16, fp32"]),
        (["--min-batch", "9"], ["engine.json with the options given", "must not decrease, got 9, 4, 8"]),
        (["--min-batch", "2"], ["min_batch: got 2", "config.pbtxt promises single images; take 1, or give --out"]),
        (["--max-batch", "7"], ["max_batch: got 7", "config.pbtxt promises 8; take 8, or give --out"]),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], words: list[str], build: Callable[..., Result], package: Path, device: list[dict[str, Any]]
) -> None:
    refused(build(*options), *words)
    assert device == []
    assert not (package / "engines").exists()


def test_a_changed_onnx_file_is_refused(
    build: Callable[..., Result], package: Path, device: list[dict[str, Any]]
) -> None:
    with (package / "model.onnx").open("ab") as file:
        file.write(b"\0")
    refused(build(), f"{package / 'model.onnx'}: differs from its SHA-256", "fetch the package again")
    assert device == []


def test_a_host_that_cannot_build_says_what_is_missing(
    build: Callable[..., Result], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2: asked to build, it must not pass for done."""
    reason = "no NVIDIA GPU on this host, or no driver for it"
    monkeypatch.setattr(package_engine, "probe_tensorrt", lambda: HOST | {"buildable": False, "reason": reason})
    refused(build(), f"no engine can be built here: {reason}", "pip install 'tensorrt>=10.3'")
    assert not (package / "engines").exists()


def test_an_engine_that_answers_otherwise_is_not_kept(
    build: Callable[..., Result], package: Path, device: list[dict[str, Any]]
) -> None:
    tensors = {"images": np.zeros((3, 3, 8, 6), np.uint8), "labels": np.zeros(3, np.int64)}
    save_file(tensors | {"logits": np.ones((3, 5), np.float32)}, package / "samples.safetensors")
    seal(package)
    result = build()
    assert result.exit_code == 1
    assert "error: model.plan, batch of 1: logits differ by" in result.output
    assert len(device) == 1
    assert not (package / "engines").exists()
    assert not (package / "triton/small-tensorrt/1").exists()


def test_accuracy_and_labels_are_gates_too(export: Path) -> None:
    plan = EnginePlan(export / "model.onnx", "fp32", (8, 6), **SETTINGS)  # type: ignore[arg-type]
    samples, runtime = engines.read_samples(export), OnnxRuntime(export / "model.onnx")
    turned = samples._replace(logits=np.roll(samples.logits, 1, axis=1))
    assert engines.evaluate_runtimes(runtime, turned, LOOSE, plan)["parity"]["top1_agreement"] == 0.0
    with pytest.raises(GateError, match=r"model.plan, 21 samples: 0.00% of the images get the same label"):
        engines.evaluate_runtimes(runtime, turned, LOOSE._replace(min_top1_agreement=0.5), plan)
    labelled = turned._replace(labels=turned.logits.argmax(axis=1))
    with pytest.raises(GateError, match=r"model.plan: accuracy 0.00% lies 100.00% below"):
        engines.evaluate_runtimes(runtime, labelled, LOOSE._replace(max_drop=0.5), plan)


def test_every_batch_size_of_the_profile_is_tried(export: Path) -> None:
    plan = EnginePlan(export / "model.onnx", "fp32", (8, 6), **SETTINGS)  # type: ignore[arg-type]
    data = plan_of(plan)
    runtime = OnnxInItsPlace(data, description={"plan_sha256": hashlib.sha256(data).hexdigest()})
    engines.evaluate_runtimes(runtime, engines.read_samples(export), STRICT, plan)
    assert runtime.batches[:7] == [8, 8, 5, 1, 2, 4, 8]


def test_a_file_of_another_precision_is_not_built(export: Path, tmp_path: Path, device: list[dict[str, Any]]) -> None:
    plan = EnginePlan(export / "model.onnx", "fp16", (8, 6), **SETTINGS)  # type: ignore[arg-type]
    with pytest.raises(GateError, match=r"model.onnx: not a file of precision fp16: .*Conv: computes in FP32"):
        engines.build_engine(
            tmp_path, plan, host=HOST, samples=engines.read_samples(export), gate=STRICT, cache=tmp_path
        )
    assert device == []


def test_an_export_becomes_an_engine_of_each_precision(
    export: Path, tmp_path: Path, device: list[dict[str, Any]]
) -> None:
    planned = engines.plans(export, ("fp32", "fp16"), SETTINGS)
    status = engines.write_engines(tmp_path, planned, host=HOST, cache=tmp_path)
    assert status == json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("built", "")
    assert status["engines"] == {"fp32": "model.plan.json", "fp16": "model.fp16.plan.json"}
    assert all((tmp_path / name).exists() for name in ("model.plan", "model.fp16.plan", *status["engines"].values()))
    assert "--onnx=model.fp16.onnx" in status["on_the_target_device"]["fp16"]
    assert status["support"]["fp16"]["10"]["accepted"] is True
    assert len(device) == 2


def test_what_the_table_says_goes_with_a_builders_error(
    tmp_path: Path, export: Path, device: list[dict[str, Any]]
) -> None:
    old = HOST | {"tensorrt": "10.3.0"}
    source = tmp_path / "model.onnx"
    model = engines.onnx.load(export / "model.onnx")
    model.opset_import[0].version = 22
    engines.onnx.save(model, source)
    plan = EnginePlan(source, "fp32", (8, 6), **SETTINGS)  # type: ignore[arg-type]
    samples = engines.read_samples(export)
    engines.build_engine(tmp_path, plan, host=old, samples=samples, gate=LOOSE, cache=tmp_path)
    assert device[0]["hints"] == ["opset 22: TensorRT 10 takes 9 to 20"]


def test_a_precision_that_was_not_exported_is_refused(export: Path) -> None:
    with pytest.raises(UserError, match=r"got int8-trt, but .* has fp16, fp32; add it to export_onnx.precisions"):
        engines.plans(export, ["fp32", "int8-trt"], SETTINGS)


def test_gates_that_are_missing_are_named() -> None:
    with pytest.raises(UserError, match=r"manifest.json: has no gates of fp16"):
        read_gate({"gates": {"fp32": GATES["fp32"]}}, "fp16", gpu_kernels=True)


def test_a_plan_that_was_not_proved_is_not_loaded(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"the plan")
    with pytest.raises(UserError, match=r"model.plan.json: no such file"):
        open_engine(plan)
    write_json(tmp_path / "model.plan.json", {"plan_sha256": hashlib.sha256(b"the plan").hexdigest()})
    plan.write_bytes(b"another plan")
    with pytest.raises(UserError, match=r"model.plan: its SHA-256 is .*not the engine that was proved here"):
        open_engine(plan)
    plan.unlink()
    with pytest.raises(UserError, match=r"model.plan: cannot be read"):
        open_engine(plan)


WITHOUT_TORCH = """
import sys
from pathlib import Path

sys.modules["torch"] = None
from click.testing import CliRunner
from pipeline import engines, package_engine
from stages.commands.build_engine import build_engine

reached = "pipeline.training.loop" in sys.modules, "dvc" in sys.modules, "onnxruntime" in sys.modules
from pipeline.runtimes.onnx import OnnxRuntime

class InItsPlace:
    def __new__(cls, plan, *, description):
        return OnnxRuntime(Path(plan.decode()))

engines.build_plan = lambda plan, **_: str(plan.onnx).encode()
engines.TensorrtRuntime = InItsPlace
package_engine.probe_tensorrt = lambda: {host}
result = CliRunner().invoke(build_engine, ["--package", sys.argv[1], "--cache", sys.argv[1]])
print(result.output, result.exception)
assert result.exit_code == 0
assert reached == (False, False, False)
assert sys.modules["torch"] is None
"""


def test_building_needs_neither_pytorch_nor_training_code(package: Path) -> None:
    code = WITHOUT_TORCH.replace("{host}", repr(HOST))
    result = subprocess.run(
        [sys.executable, "-c", code, str(package)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert (package / "engines/model.plan.json").exists()
