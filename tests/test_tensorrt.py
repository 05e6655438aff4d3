"""What surrounds a TensorRT build on any host; the build itself where there are TensorRT and a GPU."""

import importlib.metadata
import importlib.util
import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pynvml
import pytest
import torch
from click.testing import CliRunner, Result
from onnx import TensorProto, helper
from polygraphy.backend import trt

from models.deploy import with_num_steps
from models.factory import build_classifier
from pipeline.core import host
from pipeline.core.arrays import Outputs
from pipeline.core.host import probe_tensorrt
from pipeline.core.signature import Signature
from pipeline.export.calibration import Calibration
from pipeline.export.onnx.exporter import export_image_network
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.tensorrt.engines import build_engine
from pipeline.export.tensorrt.plan import EnginePlan, EngineSettings, trtexec_command
from pipeline.runtimes.base import predict
from pipeline.runtimes.engine_file import describe_signature
from pipeline.runtimes.tensorrt import infer_within, open_engine
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.table import get_task
from pipeline.tasks.verification import Reference
from stages import evaluate
from stages.export_tensorrt import main
from tests.helpers import ROOT, refused

TASK = get_task("classification")
SETTINGS = EngineSettings(timing_cache=False)


def signature_of(height: int, width: int) -> Signature:
    return TASK.signature(image_size=(height, width), input_dtype="float32", class_names="abcd")


PLAN = EnginePlan(Path("artifacts/onnx/model.onnx"), "fp32", signature_of(32, 24), SETTINGS)
HAS_TENSORRT = importlib.util.find_spec("tensorrt") is not None and torch.cuda.is_available()


def options_of(command: str) -> dict[str, str]:
    """Return trtexec's options with their values; empty for a switch."""
    words = shlex.split(command)
    assert words[0] == "trtexec"
    assert all(word.startswith("--") for word in words[1:])
    parts = [word.removeprefix("--").partition("=") for word in words[1:]]
    return {name: value for name, _, value in parts}


def test_the_command_for_the_target_names_every_option() -> None:
    assert options_of(trtexec_command(PLAN)) == {
        "onnx": "model.onnx",
        "saveEngine": "model.plan",
        "stronglyTyped": "",
        "noTF32": "",
        "skipInference": "",
        "builderOptimizationLevel": "3",
        "memPoolSize": "workspace:1024",
        "minShapes": "image:1x3x32x24",
        "optShapes": "image:8x3x32x24",
        "maxShapes": "image:64x3x32x24",
    }


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"version_compatible": True}, {"versionCompatible": ""}),
        ({"hardware_compatibility": "ampere_plus"}, {"hardwareCompatibilityLevel": "ampere+"}),
        (
            {"hardware_compatibility": "same_compute_capability"},
            {"hardwareCompatibilityLevel": "sameComputeCapability"},
        ),
        ({"timing_cache": True}, {"timingCacheFile": "tensorrt.timing"}),
    ],
)
def test_options_that_are_set_are_in_the_command(changes: dict[str, object], added: dict[str, str]) -> None:
    found = options_of(trtexec_command(PLAN._replace(settings=replace(SETTINGS, **changes))))
    assert found == options_of(trtexec_command(PLAN)) | added


def test_no_option_chooses_a_precision() -> None:
    """``--fp16`` and ``--int8`` are gone from TensorRT 11, and the file's types decide."""
    found = options_of(trtexec_command(PLAN._replace(precision="int8-trt")))
    assert found == options_of(trtexec_command(PLAN)) | {"saveEngine": "model.int8-trt.plan"}
    assert not {"fp16", "int8", "best"} & set(found)


def test_polygraphy_has_what_the_build_and_the_runtime_call() -> None:
    assert "strongly_typed" in inspect.signature(trt.NetworkFromOnnxPath.__init__).parameters
    assert list(inspect.signature(trt.Profile.add).parameters) == ["self", "name", "min", "opt", "max"]
    assert "engine" in inspect.signature(trt.TrtRunner.__init__).parameters
    assert "feed_dict" in inspect.signature(trt.TrtRunner.infer).parameters
    assert "save_timing_cache" in inspect.signature(trt.EngineBytesFromNetwork.__init__).parameters


@pytest.fixture
def stage(tmp_path: Path, params_file: Callable[..., Path]) -> Callable[..., Result]:
    """Return a function that runs the stage with the given facts of the host; it writes the folder out."""

    def run(host: dict[str, object], **changes: object) -> Result:
        source = tmp_path / "onnx"
        source.mkdir(exist_ok=True)
        tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("image", "logits")]
        graph = helper.make_graph([helper.make_node("Relu", ["image"], ["logits"])], "g", tensors[:1], tensors[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)])
        facts = {"bytes": 1, "gates": {}, "tensorrt_static_check": {}}
        files = {f"model{part}.onnx": {"precision": name, **facts} for part, name in (("", "fp32"), (".fp16", "fp16"))}
        for name in files:
            onnx.save(model, source / name)
        manifest = {"files": files, "task": TASK.name, "signature": describe_signature(signature_of(8, 6))}
        manifest |= {"gates": {}, "num_steps": None, "opset": 22}
        (source / "manifest.json").write_text(json.dumps(manifest))
        (tmp_path / "environment.json").write_text(json.dumps({"tensorrt": host}))
        settings = {f"export_tensorrt.{name}": value for name, value in changes.items()}
        options = {"params": params_file(settings), "onnx": source, "environment": tmp_path / "environment.json"}
        arguments = [text for name, path in options.items() for text in (f"--{name}", str(path))]
        return CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])

    return run


NO_GPU = {"buildable": False, "reason": "no NVIDIA GPU on this host, or no driver for it"}


def test_where_no_engine_can_be_built_the_stage_says_why_and_how(stage: Callable[..., Result], tmp_path: Path) -> None:
    result = stage(NO_GPU)
    assert result.exit_code == 0, result.output
    status = json.loads((tmp_path / "out/status.json").read_text())
    assert (status["status"], status["reason"], status["engines"]) == ("skipped", NO_GPU["reason"], {})
    assert set(status["on_the_target_device"]) == {"fp32", "fp16"}
    assert status["on_the_target_device"]["fp16"].startswith("trtexec --onnx=model.fp16.onnx")
    assert "image:64x3x8x6" in status["on_the_target_device"]["fp32"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["status.json"]


def test_where_there_is_no_engine_nothing_is_evaluated_and_pytorch_not_imported(
    stage: Callable[..., Result], tmp_path: Path
) -> None:
    stage(NO_GPU)
    size = {"image_size": [8, 6], "mean": [0.5] * 3, "std": [0.2] * 3, "resize": "none", "storage": "packed"}
    about = {"task": TASK.name, "classes": ["a", "b"], "class_counts": {"train": [1, 1]}, **size}
    (tmp_path / "data.json").write_text(json.dumps(about))
    places = {name: str(tmp_path / name) for name in ("student", "calibration", "scores", "predictions")}
    places |= {"data": str(tmp_path), "artifact": str(tmp_path / "out"), "out": str(tmp_path / "report.json")}
    words = ["tensorrt", *(text for name, place in places.items() for text in (f"--{name}", place))]
    code = f"""
import sys
from click.testing import CliRunner
from stages.evaluate import main
result = CliRunner().invoke(main, {words})
print(result.exit_code, "torch" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout == "0 False\n", told
    for name in ("report.json", "scores"):
        assert json.loads((tmp_path / name).read_text()) == {"status": "skipped", "reason": NO_GPU["reason"]}
    assert (tmp_path / "predictions").read_text().splitlines() == [",".join(TASK.image_columns)]
    (tmp_path / "data.json").write_text(json.dumps(about | {"task": "pose"}))
    refused(CliRunner().invoke(evaluate.main, words), "data.json: unknown task 'pose'", "run prepare_data again")


def test_the_stage_tells_what_the_operator_table_says(stage: Callable[..., Result], tmp_path: Path) -> None:
    stage(NO_GPU)
    found = json.loads((tmp_path / "out/status.json").read_text())["support"]["fp32"]
    assert found["10"]["reasons"] == ["opset 22: TensorRT 10 takes 9 to 20"]
    assert (found["10"]["accepted"], found["11"]["accepted"]) == (False, True)


def test_a_precision_without_a_file_is_refused(stage: Callable[..., Result], tmp_path: Path) -> None:
    refused(stage(NO_GPU, precisions=["int8-trt"]), "got int8-trt", "add it to export_onnx.precisions")
    assert not (tmp_path / "out").exists()


def test_where_engines_can_be_built_none_is_skipped(stage: Callable[..., Result], tmp_path: Path) -> None:
    """Samples to prove the engine by are missing here: that is an error, like all that goes wrong in building."""
    refused(stage(NO_GPU | {"buildable": True, "reason": ""}), "samples.safetensors: cannot be read")
    assert not (tmp_path / "out").exists()


class FakeNvml:
    """NVML with one GPU, or with a fault; as on a Jetson it knows of no memory."""

    NVMLError = pynvml.NVMLError

    def __init__(self, count: int = 1, *, driver: bool = True) -> None:
        self.count, self.driver = count, driver

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self) -> None:  # noqa: N802
        """Do nothing."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str:  # noqa: N802, ARG002
        return "NVIDIA H200"

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802, ARG002
        return 9, 0

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> None:  # noqa: N802, ARG002
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlSystemGetCudaDriverVersion(self) -> int:  # noqa: N802
        return 13_010


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the GPU and the versions of packages that the probe finds."""

    def install(nvml: FakeNvml, **versions: str) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        error = importlib.metadata.PackageNotFoundError
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        fake = SimpleNamespace(version=version, PackageNotFoundError=error)
        monkeypatch.setattr(host.importlib, "metadata", fake)

    return install


@pytest.mark.parametrize(
    ("nvml", "tensorrt", "buildable", "reason"),
    [
        (FakeNvml(), "11.4.1", True, ""),
        (FakeNvml(), "10.3.0", True, ""),
        (FakeNvml(), "8.6.1", False, "the Python package tensorrt is 8.6.1, needed is 10.3 or later"),
        (FakeNvml(), None, False, "the Python package tensorrt is not installed"),
        (FakeNvml(0), "11.4.1", False, "no NVIDIA GPU on this host, or no driver for it"),
        (FakeNvml(driver=False), "11.4.1", False, "no NVIDIA GPU on this host, or no driver for it"),
    ],
)
@pytest.mark.skipif(HAS_TENSORRT, reason="TensorRT is installed here, and cannot be made missing")
def test_the_probe_tells_what_is_missing(
    nvml: FakeNvml, tensorrt: str | None, buildable: bool, reason: str, installed: Callable[..., None]
) -> None:
    installed(nvml, polygraphy="0.53.6", **({} if tensorrt is None else {"tensorrt": tensorrt}))
    facts = probe_tensorrt()
    assert (facts["buildable"], facts["reason"]) == (buildable, reason)
    assert facts["tensorrt_major"] == (None if tensorrt is None else int(tensorrt.split(".")[0]))
    if buildable:
        assert facts == {
            "buildable": True,
            "reason": "",
            "gpu": "NVIDIA H200",
            "compute_capability": "9.0",
            "tensorrt": tensorrt,
            "tensorrt_major": facts["tensorrt_major"],
            "polygraphy": "0.53.6",
        }


@pytest.mark.skipif(HAS_TENSORRT, reason="TensorRT is installed here, and cannot be replaced")
def test_the_probe_finds_a_system_package_without_running_it(
    installed: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JetPack installs it: a module on the path, without metadata of a distribution."""
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt/__init__.py").write_text("raise RuntimeError('imported')\n__version__ = \"10.3.0\"\n")
    monkeypatch.syspath_prepend(tmp_path)
    installed(FakeNvml(), polygraphy="0.53.6")
    facts = probe_tensorrt()
    assert (facts["buildable"], facts["tensorrt"], facts["tensorrt_major"]) == (True, "10.3.0", 10)
    assert "tensorrt" not in sys.modules


def test_the_probe_misses_polygraphy(installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    installed(FakeNvml(), tensorrt="11.4.1")
    monkeypatch.setattr(host.importlib.util, "find_spec", lambda _: None)
    facts = probe_tensorrt()
    assert (facts["reason"], facts["polygraphy"]) == ("the Python package polygraphy is not installed", None)


def test_the_probe_gives_the_same_facts_twice() -> None:
    assert probe_tensorrt() == probe_tensorrt()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_batches_are_brought_within_the_engines_profile(count: int) -> None:
    sizes = []

    def infer(images: np.ndarray) -> Outputs:
        sizes.append(len(images))
        sums = images.sum(axis=(1, 2, 3))[:, None]
        return {"sums": sums, "whole": sums.astype(np.int32)}

    images = np.random.default_rng(0).random((count, 3, 2, 2), dtype=np.float32)
    outputs = infer_within(infer, images, smallest=2, largest=7)
    right = images.sum(axis=(1, 2, 3))[:, None]
    np.testing.assert_array_equal(outputs["sums"], right)
    np.testing.assert_array_equal(outputs["whole"], right.astype(np.int32))
    assert all(2 <= size <= 7 for size in sizes)


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.skipif(not HAS_TENSORRT, reason="needs the package tensorrt and a CUDA device")
@pytest.mark.parametrize(("precision", "max_abs"), [("fp32", 1e-3), ("fp16", 3e-2)])
def test_an_engine_agrees_with_the_trained_network(precision: str, max_abs: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classifier = build_classifier(backbone="resnet8", num_classes=4, mean=[0.5] * 3, std=[0.2] * 3).eval()
    network = with_num_steps(classifier, None)
    signature = signature_of(8, 8)
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    float32 = tmp_path / "fp32.onnx"
    export_image_network(network.general_form(), float32, signature.input, ["logits"], opset=20, metadata={})
    convert_to_half(float32, tmp_path / "fp16.onnx", Calibration(images.numpy(), "float32", "minmax"))
    with torch.no_grad():
        logits = network(images.float() / 255).numpy()
    samples = Reference(TASK, images.numpy(), {"labels": logits.argmax(axis=1)}, {"logits": logits})
    settings = replace(SETTINGS, max_batch=16, timing_cache=True)
    plan = EnginePlan(tmp_path / f"{precision}.onnx", precision, signature, settings)
    gate = PlacedGate(Gate(max_difference=max_abs, min_agreement=0.9, max_drop=0.1), "gate", "")
    about = build_engine(tmp_path, plan, host=probe_tensorrt(), samples=samples, gate=gate, cache=tmp_path)
    assert about["parity"]["max_abs"] < max_abs
    assert list((tmp_path / "tensorrt").glob("*.timing"))
    found = predict(open_engine(tmp_path / plan.file), samples.pixels, 7)
    np.testing.assert_allclose(found["logits"], samples.outputs["logits"], atol=max_abs)
