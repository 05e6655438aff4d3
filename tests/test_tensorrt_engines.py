"""Engines from an export and from a package: all of it but TensorRT, whose place ONNX Runtime takes here."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper

from pipeline.core import host as this_host
from pipeline.core.arrays import Outputs
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import write_json
from pipeline.core.signature import Signature, TensorSpec
from pipeline.export.calibration import Calibration
from pipeline.export.folder import MANIFEST, read_gate, read_samples
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.samples import write_samples
from pipeline.export.tensorrt import engines, exported_engines
from pipeline.export.tensorrt.plan import EnginePlan
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.package.engine_register import listed_engines, register_path
from pipeline.package.reader import Package
from pipeline.package.writer import write_sums
from pipeline.runtimes.base import predict
from pipeline.runtimes.engine_file import describe_signature, read_signature, sidecar
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.tensorrt import open_engine
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.table import get_task
from pipeline.tasks.verification import Reference
from stages.__main__ import main
from stages.commands.build_engine import build_engine as command
from tests import detection_package, toy_task
from tests.helpers import ROOT, refused

HOST = {
    "buildable": True,
    "reason": "",
    "gpu": "NVIDIA Orin (nvgpu)",
    "compute_capability": "8.7",
    "tensorrt": "10.3.0",
    "tensorrt_major": 10,
    "polygraphy": "0.53.6",
}
SETTINGS = ExportTensorrt(precisions=("fp32",), min_batch=2, opt_batch=4, max_batch=8, workspace_mib=64)
STRICT = Gate(max_difference=1e-4, min_agreement=1.0, max_drop=0.0)
WIDER = Gate(max_difference=1e-2, min_agreement=0.9, max_drop=0.1)
LOOSE = Gate(max_difference=None, min_agreement=1e-9, max_drop=1.0)
GATES = {"fp32": asdict(STRICT), "fp16": asdict(WIDER)}
TASK = get_task("classification")
SIGNATURE = TASK.signature(image_size=(8, 6), input_dtype="float32", class_names="abcde")
NO_IMAGES = np.zeros((0, 3, 8, 6), np.uint8)
OLD_PACKAGE = ROOT / "tests" / "packages" / "v0_1"


class OnnxInItsPlace:
    """What ``TensorrtRuntime`` is to ``pipeline.export.tensorrt.engines``, over an ONNX file that poses as a plan."""

    def __init__(self, plan: bytes, *, description: dict[str, Any]) -> None:
        assert description["plan_sha256"] == hashlib.sha256(plan).hexdigest()
        self.session = OnnxRuntime(Path(plan.decode()))
        self.input_dtype = self.session.input_dtype
        self.batches: list[int] = []

    def infer(self, images: np.ndarray) -> Outputs:
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
    monkeypatch.setattr(this_host, "probe_tensorrt", lambda: HOST)
    return asked


def write_network(path: Path) -> None:
    """Write a convolution and a linear layer with random weights."""
    generator = np.random.default_rng(0)
    shapes = {"kernel": (4, 3, 3, 3), "shift": (4,), "matrix": (4, 5), "bias": (5,)}
    nodes = [
        helper.make_node("Conv", ["image", "kernel", "shift"], ["maps"], name="conv"),
        helper.make_node("Relu", ["maps"], ["positive"], name="relu"),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"], name="pool"),
        helper.make_node("Flatten", ["means"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"], name="linear"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 8, 6])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array(generator.normal(size=shape).astype(np.float32), name)
            for name, shape in shapes.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ONNX export of a small network in two precisions, with samples."""
    folder = tmp_path_factory.mktemp("export")
    write_network(folder / "model.onnx")
    convert_to_half(folder / "model.onnx", folder / "model.fp16.onnx", Calibration(NO_IMAGES, "float32", "minmax"))
    images = np.random.default_rng(0).integers(0, 256, (21, 3, 8, 6), dtype=np.uint8)
    outputs = predict(OnnxRuntime(folder / "model.onnx", optimize=False), images, len(images))
    write_samples(folder, Reference(TASK, images, {"labels": outputs["logits"].argmax(axis=1)}, outputs))
    entry = {"bytes": 1, "gates": {}, "tensorrt_static_check": {}}
    files = {"model.onnx": entry | {"precision": "fp32"}, "model.fp16.onnx": entry | {"precision": "fp16"}}
    manifest = {"files": files, "gates": GATES, "image_size": [8, 6], "input": "float32", "num_steps": 1, "opset": 20}
    write_json(folder / MANIFEST, manifest | {"task": TASK.name, "signature": describe_signature(SIGNATURE)})
    return folder


def planned(onnx: Path, precision: str = "fp32") -> EnginePlan:
    return EnginePlan(onnx, precision, SIGNATURE, SETTINGS.plain())


def placed(gate: Gate) -> PlacedGate:
    return PlacedGate(gate, "gates.engine", "do something")


def samples_of(folder: Path) -> Reference:
    return read_samples(folder, {})


@pytest.fixture
def package(tmp_path: Path, export: Path) -> Path:
    """Return a package."""
    folder = tmp_path / "package"
    folder.mkdir()
    for path in export.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((folder / "manifest.json").read_text()) | {"name": "small"}
    write_json(folder / "manifest.json", manifest)
    write_json(folder / "labels.json", {"labels": list("abcde")})
    write_json(folder / "engine.json", asdict(SETTINGS.plain()) | {"min_batch": 1})
    write_sums(folder)
    return folder


@pytest.fixture
def build(package: Path, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the command on the package with more options."""

    def run(*options: str) -> Result:
        common = ["--package", str(package), "--cache", str(tmp_path / "cache")]
        return CliRunner().invoke(command, [*common, *options])

    return run


def test_a_package_becomes_a_verified_engine(
    build: Callable[..., Result], package: Path, tmp_path: Path, device: list[dict[str, Any]]
) -> None:
    result = build()
    assert result.exit_code == 0, result.output
    plan = package / "engines/model.plan"
    about = json.loads((package / "engines/model.plan.json").read_text())
    assert about["plan_sha256"] == hashlib.sha256(plan.read_bytes()).hexdigest()
    assert about["onnx_sha256"] == hashlib.sha256((package / "model.onnx").read_bytes()).hexdigest()
    assert about["input"] == {"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 6]}
    assert about["outputs"] == [{"name": "logits", "dtype": "float32", "shape": ["batch", 5]}]
    assert read_signature(about) == SIGNATURE
    assert about["batch"] == {"min": 1, "opt": 4, "max": 8}
    assert about["options"] == SETTINGS.model_dump(
        include={
            "optimization_level",
            "workspace_mib",
            "version_compatible",
            "hardware_compatibility",
            "timing_cache",
        }
    )
    facts = ("gpu", "compute_capability", "tensorrt", "precision", "plan", "onnx")
    assert [about[key] for key in facts] == ["NVIDIA Orin (nvgpu)", "8.7", "10.3.0", "fp32", "model.plan", "model.onnx"]
    assert (about["accuracy"], about["accuracy_drop"], about["num_images"]) == (1.0, 0.0, 21)
    assert about["parity"]["max_abs"] < 1e-5
    assert about["parity"]["agreement"] == 1.0
    assert set(about["latency_ms"]) == {"1", "4", "8"}
    assert list(package.rglob("*.plan")) == [plan]
    assert "fp32, TensorRT 10.3.0, NVIDIA Orin (nvgpu)" in result.output
    assert "100.00% of 21 samples" in result.output
    assert device[0]["cache"] == tmp_path / "cache/tensorrt/NVIDIA-Orin-nvgpu-10.3.0.timing"
    assert device[0]["hints"] == []
    assert listed_engines()[about["plan_sha256"]]["package"] == "small"


def test_a_build_in_the_packages_own_folder_keeps_its_timings_elsewhere(
    package: Path, device: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a device, where ``fmkt.pyz`` is run beside the files: ``verify`` would refuse a timing cache there."""
    monkeypatch.chdir(package)
    result = CliRunner().invoke(command, ["--package", "."])
    assert result.exit_code == 0, result.output
    assert device[0]["cache"] == register_path().parent / "tensorrt/NVIDIA-Orin-nvgpu-10.3.0.timing"


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
        "version_compatible": True,
        "hardware_compatibility": "ampere_plus",
        "timing_cache": False,
        "optimization_level": 5,
        "workspace_mib": 64,
    }
    assert device[0]["cache"] is None
    assert not list(package.rglob("*.plan")), "with --out the package stays as it is"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int8-trt"], ["has no file of precision 'int8-trt'", "fp16, fp32"]),
        (["--min-batch", "9"], ["engine.json with the options given", "must not decrease, got 9, 4, 8"]),
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
    monkeypatch.setattr(this_host, "probe_tensorrt", lambda: HOST | {"buildable": False, "reason": reason})
    refused(build(), f"no engine can be built here: {reason}", "pip install 'tensorrt>=10.3'")
    assert not (package / "engines").exists()


def test_a_host_that_cannot_list_its_engines_builds_none(
    build: Callable[..., Result], package: Path, device: list[dict[str, Any]]
) -> None:
    register_path().parent.parent.write_text("a file where the folder should be")
    refused(build(), "engines.json: cannot be written", "set XDG_STATE_HOME to a folder that can be")
    assert device == []
    assert not (package / "engines").exists()


def test_an_engine_that_answers_otherwise_is_not_kept(
    build: Callable[..., Result], package: Path, device: list[dict[str, Any]]
) -> None:
    truth, outputs = {"labels": np.zeros(3, np.int64)}, {"logits": np.ones((3, 5), np.float32)}
    write_samples(package, Reference(TASK, np.zeros((3, 3, 8, 6), np.uint8), truth, outputs))
    write_sums(package)
    result = build()
    assert result.exit_code == 1
    assert "error: model.plan, 3 images: outputs differ by" in result.output
    assert len(device) == 1
    assert not (package / "engines").exists()


def test_score_and_answers_are_gates_too(export: Path) -> None:
    plan, samples, runtime = planned(export / "model.onnx"), samples_of(export), OnnxRuntime(export / "model.onnx")
    turned = replace(samples, outputs={"logits": np.roll(samples.outputs["logits"], 1, axis=1)})
    loosest = replace(LOOSE)
    object.__setattr__(loosest, "min_agreement", 0.0)  # what no gate may be
    assert engines.measure_engine(runtime, turned, placed(loosest), plan)["parity"]["agreement"] == 0.0
    with pytest.raises(
        GateError, match=r"model.plan, 21 images: 21 of 21 images do not get the trained network's answer"
    ):
        engines.measure_engine(runtime, turned, placed(replace(LOOSE, min_agreement=0.3)), plan)
    labelled = replace(turned, truth={"labels": turned.outputs["logits"].argmax(axis=1)})
    with pytest.raises(GateError, match=r"model.plan, 21 images: accuracy 0.00% lies 100.00% below"):
        engines.measure_engine(runtime, labelled, placed(replace(LOOSE, max_drop=0.5)), plan)


def test_every_batch_size_of_the_profile_is_tried(export: Path) -> None:
    plan = planned(export / "model.onnx")
    data = plan_of(plan)
    runtime = OnnxInItsPlace(data, description={"plan_sha256": hashlib.sha256(data).hexdigest()})
    engines.measure_engine(runtime, samples_of(export), placed(STRICT), plan)
    assert runtime.batches[:7] == [8, 8, 5, 1, 2, 4, 8]


def test_several_outputs_go_into_the_sidecar(tmp_path: Path, device: list[dict[str, Any]]) -> None:
    folder = toy_task.make_package(tmp_path / "toy")
    task = toy_task.Brightness()
    signature = task.signature(image_size=(8, 8), input_dtype="float32", class_names=toy_task.CHANNELS)
    samples = toy_task.samples()
    plan = EnginePlan(folder / "model.onnx", "fp32", signature, SETTINGS.plain())
    about = engines.build_engine(tmp_path, plan, host=HOST, samples=samples, gate=placed(STRICT), cache=tmp_path)
    assert len(device) == 1
    assert [(output["name"], output["dtype"]) for output in about["outputs"]] == [
        (toy_task.LEVELS, "float32"),
        (toy_task.COUNT, "int32"),
    ]
    assert read_signature(json.loads(sidecar(tmp_path / plan.file).read_text())) == signature
    assert (about["right_counts"], about["right_counts_drop"]) == (1.0, 0.0)


def test_a_package_of_version_0_1_becomes_an_engine(tmp_path: Path, device: list[dict[str, Any]]) -> None:
    words = ["--package", str(OLD_PACKAGE), "--cache", str(tmp_path), "--out", str(tmp_path / "engines")]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert device[0]["plan"].batches == {"min": 1, "opt": 8, "max": 16}
    about = json.loads((tmp_path / "engines/model.plan.json").read_text())
    assert read_signature(about).outputs[0].shape == (10,)
    assert "of 8 samples" in result.output


def test_a_package_of_detections_becomes_an_engine(tmp_path: Path, device: list[dict[str, Any]]) -> None:
    folder = detection_package.make_package(tmp_path / "package")
    result = CliRunner().invoke(command, ["--package", str(folder), "--cache", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert len(device) == 1
    about = json.loads((folder / "engines/model.plan.json").read_text())
    assert read_signature(about) == Package.open(folder).signature
    assert about["parity"]["counted"] == "detections"
    assert "same answer               100.00%" in result.output
    assert "samples" not in result.output, "so few images have no AP"
    verified = CliRunner().invoke(main, ["verify", "--package", str(folder)])
    assert verified.exit_code == 0, verified.output


def test_a_file_of_another_precision_is_not_built(export: Path, tmp_path: Path, device: list[dict[str, Any]]) -> None:
    plan, samples = planned(export / "model.onnx", "fp16"), samples_of(export)
    with pytest.raises(GateError, match=r"model.onnx: not a file of precision fp16: .*Conv: computes in FP32"):
        engines.build_engine(tmp_path, plan, host=HOST, samples=samples, gate=placed(STRICT), cache=tmp_path)
    assert device == []


def test_an_export_becomes_an_engine_of_each_precision(
    export: Path, tmp_path: Path, device: list[dict[str, Any]]
) -> None:
    settings = SETTINGS.model_copy(update={"precisions": ("fp32", "fp16")})
    plans = exported_engines.plan_engines(export, SIGNATURE, settings)
    status = exported_engines.write_engines(tmp_path, plans, host=HOST, cache=tmp_path)
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
    model = onnx.load(export / "model.onnx")
    model.opset_import[0].version = 22
    onnx.save(model, tmp_path / "model.onnx")
    plan, samples = planned(tmp_path / "model.onnx"), samples_of(export)
    engines.build_engine(tmp_path, plan, host=HOST, samples=samples, gate=placed(LOOSE), cache=tmp_path)
    assert device[0]["hints"] == ["opset 22: TensorRT 10 takes 9 to 20"]


def test_a_precision_that_was_not_exported_is_refused(export: Path) -> None:
    settings = SETTINGS.model_copy(update={"precisions": ("fp32", "int8-trt")})
    with pytest.raises(UserError, match=r"got int8-trt, but .* has fp16, fp32; add it to export_onnx.precisions"):
        exported_engines.plan_engines(export, SIGNATURE, settings)


def test_gates_that_are_missing_are_named() -> None:
    with pytest.raises(UserError, match=r"manifest.json: has no gates of fp16"):
        read_gate({"gates": {"fp32": GATES["fp32"]}}, "fp16", gpu_kernels=True)


def test_a_plan_that_was_not_verified_is_not_loaded(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"the plan")
    with pytest.raises(UserError, match=r"model.plan.json: cannot be read"):
        open_engine(plan)
    facts = {"plan": "model.plan", "onnx": "model.onnx", "onnx_sha256": "0", "precision": "fp32"}
    facts |= {"plan_sha256": hashlib.sha256(b"the plan").hexdigest(), "batch": {"min": 1, "opt": 1, "max": 1}}
    image, logits = (TensorSpec(name, "float32", (3, 8, 8)) for name in ("image", "logits"))
    write_json(tmp_path / "model.plan.json", {**facts, **describe_signature(Signature(image, (logits,)))})
    plan.write_bytes(b"another plan")
    with pytest.raises(UserError, match=r"model.plan: its SHA-256 is .*not the engine that was verified here"):
        open_engine(plan)
    plan.unlink()
    with pytest.raises(UserError, match=r"model.plan: cannot be read"):
        open_engine(plan)


WITHOUT_TORCH = """
import sys
from pathlib import Path

sys.modules["torch"] = None
from click.testing import CliRunner
from pipeline.core import host
from pipeline.export.tensorrt import engines, exported_engines
from stages.__main__ import main
from stages.commands.build_engine import build_engine

reached = "pipeline.training.loop" in sys.modules, "dvc" in sys.modules, "onnxruntime" in sys.modules
from pipeline.runtimes.onnx import OnnxRuntime

class InItsPlace:
    def __new__(cls, plan, *, description):
        return OnnxRuntime(Path(plan.decode()))

engines.build_plan = lambda plan, **_: str(plan.onnx).encode()
engines.TensorrtRuntime = InItsPlace
host.probe_tensorrt = lambda: {host}
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
