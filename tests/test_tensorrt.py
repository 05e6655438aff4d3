"""What surrounds a TensorRT build on any host; the build itself where there are TensorRT and a GPU."""

import importlib.metadata
import importlib.util
import inspect
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pynvml
import pytest
import torch
from click.testing import CliRunner
from polygraphy.backend import trt

from models.deploy import deployable
from models.factory import build_classifier
from pipeline import environment
from pipeline.data.store import Split
from pipeline.environment import probe_tensorrt
from pipeline.evaluation import evaluate, trained_logits
from pipeline.export.onnx import export_onnx
from pipeline.export.tensorrt import EnginePlan, build_engine, trtexec_command
from pipeline.runtimes.opening import Options, open_runtime
from pipeline.runtimes.tensorrt import TensorrtRuntime, run_within
from stages.export_tensorrt import main

PLAN = EnginePlan(Path("artifacts/onnx/model.onnx"), (32, 24), 1, 8, 64, 3, 1024)
HAS_TENSORRT = importlib.util.find_spec("tensorrt") is not None and torch.cuda.is_available()


def test_the_command_for_the_target_names_every_option() -> None:
    words = shlex.split(trtexec_command(PLAN))
    assert words[0] == "trtexec"
    assert dict(word.lstrip("-").split("=", 1) for word in words[1:] if "=" in word) == {
        "onnx": "model.onnx",
        "saveEngine": "model.plan",
        "builderOptimizationLevel": "3",
        "memPoolSize": "workspace:1024",
        "minShapes": "image:1x3x32x24",
        "optShapes": "image:8x3x32x24",
        "maxShapes": "image:64x3x32x24",
    }
    assert {"--stronglyTyped", "--noTF32"} <= set(words)


def test_polygraphy_has_what_the_build_and_the_runtime_call() -> None:
    assert "strongly_typed" in inspect.signature(trt.NetworkFromOnnxPath.__init__).parameters
    assert list(inspect.signature(trt.Profile.add).parameters) == ["self", "name", "min", "opt", "max"]
    assert "engine" in inspect.signature(trt.TrtRunner.__init__).parameters
    assert "feed_dict" in inspect.signature(trt.TrtRunner.infer).parameters
    assert "profiles" in str(inspect.getsource(trt.CreateConfig))
    assert all(callable(function) for function in (trt.engine_from_network, trt.save_engine, trt.EngineFromBytes))


@pytest.fixture
def stage(tmp_path: Path, params_file: Callable[..., Path]) -> Callable[[dict[str, object]], Path]:
    """Return a function that runs the stage with the given facts of the host and returns its output folder."""

    def run(host: dict[str, object]) -> Path:
        onnx = tmp_path / "onnx"
        onnx.mkdir(exist_ok=True)
        (onnx / "model.onnx").write_bytes(b"any")
        (onnx / "manifest.json").write_text('{"image_size": [8, 6]}')
        (tmp_path / "environment.json").write_text(json.dumps({"tensorrt": host}))
        options = {"params": params_file({}), "onnx": onnx, "environment": tmp_path / "environment.json"}
        arguments = [text for name, path in options.items() for text in (f"--{name}", str(path))]
        result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        return tmp_path / "out"

    return run


def test_where_no_engine_can_be_built_the_stage_says_why_and_how(stage: Callable[[dict[str, object]], Path]) -> None:
    out = stage({"buildable": False, "reason": "no NVIDIA GPU on this host, or no driver for it"})
    status = json.loads((out / "status.json").read_text())
    assert status["status"] == "skipped"
    assert status["reason"] == "no NVIDIA GPU on this host, or no driver for it"
    assert status["on_the_target_device"].startswith("trtexec --onnx=model.onnx")
    assert "image:64x3x8x6" in status["on_the_target_device"]
    options = Options(num_steps=1, num_threads=1, device=torch.device("cpu"))
    assert open_runtime("tensorrt", out, options) == "no NVIDIA GPU on this host, or no driver for it"


class FakeNvml:
    """NVML with one GPU, or with a fault."""

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


@pytest.mark.parametrize(
    ("nvml", "tensorrt", "buildable", "reason"),
    [
        (FakeNvml(), "11.4.1", True, ""),
        (FakeNvml(), None, False, "the Python package tensorrt is not installed"),
        (FakeNvml(0), "11.4.1", False, "no NVIDIA GPU on this host, or no driver for it"),
        (FakeNvml(driver=False), "11.4.1", False, "no NVIDIA GPU on this host, or no driver for it"),
    ],
)
def test_the_probe_tells_what_is_missing(
    nvml: FakeNvml,
    tensorrt: str | None,
    buildable: bool,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if tensorrt is None or name != "tensorrt":
            raise importlib.metadata.PackageNotFoundError(name)
        return tensorrt

    monkeypatch.setattr(environment, "pynvml", nvml)
    monkeypatch.setattr(
        environment.importlib,
        "metadata",
        SimpleNamespace(version=version, PackageNotFoundError=importlib.metadata.PackageNotFoundError),
    )
    facts = probe_tensorrt()
    assert (facts["buildable"], facts["reason"]) == (buildable, reason)
    if buildable:
        assert facts == {
            "buildable": True, "reason": "", "gpu": "NVIDIA H200", "compute_capability": "9.0", "tensorrt": "11.4.1",
        }  # fmt: skip


def test_the_probe_gives_the_same_facts_twice() -> None:
    assert probe_tensorrt() == probe_tensorrt()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 20])
def test_batches_are_brought_within_the_engines_profile(count: int) -> None:
    sizes = []

    def infer(images: np.ndarray) -> np.ndarray:
        sizes.append(len(images))
        return images.sum(axis=(1, 2, 3))[:, None]

    images = np.random.default_rng(0).random((count, 3, 2, 2), dtype=np.float32)
    logits = run_within(infer, images, smallest=2, largest=7)
    np.testing.assert_array_equal(logits, images.sum(axis=(1, 2, 3))[:, None])
    assert all(2 <= size <= 7 for size in sizes)


@pytest.mark.gpu
@pytest.mark.tensorrt
@pytest.mark.skipif(not HAS_TENSORRT, reason="needs the package tensorrt and a CUDA device")
def test_an_engine_agrees_with_the_trained_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = build_classifier(backbone="resnet8", num_classes=4, mean=[0.5] * 3, std=[0.2] * 3).eval()
    export_onnx(deployable(student, None), tmp_path / "m.onnx", image_size=(8, 8), opset=20, metadata={})
    status = build_engine(tmp_path, EnginePlan(tmp_path / "m.onnx", (8, 8), 1, 4, 16, 3, 256), probe_tensorrt())
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    split = Split(images, torch.zeros(40, dtype=torch.int64))
    reference = trained_logits(student, None, split, 40)
    runtime = TensorrtRuntime(tmp_path / status["engine"], description=status)
    assert evaluate(runtime, split, reference, 40).parity.max_abs < 1e-3
