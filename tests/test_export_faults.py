"""Defects in real ONNX files that the gates catch on nine images, and conversions that fail."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from models.deploy import DeployableNetwork, SampledNetwork
from models.students import build_flow_student
from pipeline.core.errors import GateError
from pipeline.data.dataset import Split
from pipeline.export.calibration import Calibration
from pipeline.export.onnx.files import Exports, Source, export_precisions
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.onnx.manifest import describe_files
from pipeline.export.onnx.onnxruntime_quantization import quantize_for_cpu
from pipeline.export.settings import ExportOnnx
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.task import Classification
from pipeline.tasks.reference import reference
from pipeline.tasks.verification import Reference, Verified, verify

TASK = Classification()
STEPS = 2
SIGNATURE = TASK.signature(image_size=(8, 8), input_dtype="float32", class_names=["a", "b", "c", "d"])


def make_network(num_steps: int = STEPS, mean: float = 0.5, head: float = 1.0) -> DeployableNetwork:
    """Return a student; ``head`` multiplies its logits."""
    torch.manual_seed(0)
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=4, time_scale=1.0, mean=[mean] * 3, std=[0.25] * 3, **names)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if ".transform.linear." in name:
                parameter.mul_(head)
    return SampledNetwork(student, num_steps).eval()


def make_split(count: int = 9) -> Split:
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, ClassTargets(torch.arange(count) % 4))


@functools.cache
def known(head: float = 1.0) -> Reference:
    return reference(TASK, make_network(head=head), SIGNATURE, make_split())


def export(network: DeployableNetwork, folder: Path, precisions: tuple[str, ...] = ("fp32",)) -> Exports:
    pixels = make_split(40).pixels
    source = Source(network, SIGNATURE, TASK.training(), pixels, {"method": "fm_kt"}, ExportOnnx())
    return export_precisions(source, folder, precisions)


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the network that ``known`` answers for."""
    return export(make_network(), tmp_path_factory.mktemp("right")).files[0].path


def verified(path: Path, precision: str = "fp32") -> Verified:
    gate = ExportOnnx().gates.placed(precision)
    return verify(OnnxRuntime(path), known(), gate, what=path.name, batch_size=9, batch_sizes=(1, 2, 7))


def test_the_right_file_passes(right: Path) -> None:
    assert verified(right).parity.difference < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"num_steps": 1}, {"num_steps": 3}, {"mean": 0.502}, {"head": 1.001}])
def test_another_network_is_caught(changes: dict[str, float], tmp_path: Path) -> None:
    """Other steps, the normalisation of other images, a head that is scaled."""
    path = export(make_network(**changes), tmp_path).files[0].path
    with pytest.raises(GateError, match=r"model.onnx, 9 images: outputs differ by .*export_onnx.gates.fp32.max_diff"):
        verified(path)


def permute_classes(weights: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(weights[::-1])


def perturb_one_weight(weights: np.ndarray) -> np.ndarray:
    changed = weights.copy()
    place = np.unravel_index(np.abs(changed).argmax(), changed.shape)
    changed[place] *= 1.01
    return changed


@pytest.mark.parametrize("fault", [permute_classes, perturb_one_weight])
def test_a_fault_in_the_last_layers_weights_is_caught(
    fault: Callable[[np.ndarray], np.ndarray], right: Path, tmp_path: Path
) -> None:
    model = onnx.load(right)
    last = next(node for node in reversed(model.graph.node) if node.op_type in {"Gemm", "MatMul"})
    weights = next(item for item in model.graph.initializer if item.name in last.input and len(item.dims) == 2)
    values = numpy_helper.to_array(weights)
    classes = values if values.shape[0] == 4 else values.T
    changed = fault(classes)
    weights.CopyFrom(numpy_helper.from_array(changed if values.shape[0] == 4 else changed.T.copy(), weights.name))
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(GateError, match=r"model.onnx, 9 images: outputs differ by"):
        verified(tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("head", [1.0, 100.0, 10_000.0])
def test_the_size_of_the_logits_does_not_decide(head: float, tmp_path: Path) -> None:
    """A head that is scaled changes no label, and no gate of fp32; what float16 cannot hold is left out, no more."""
    found = export(make_network(head=head), tmp_path, ("fp32", "fp16"))
    settings = ExportOnnx.model_validate(ExportOnnx().model_dump() | {"batch_sizes": (1, 7)})
    files, left_out = describe_files(found, known(head), settings)
    assert {entry["precision"] for entry in files.values()} | set(left_out) == {"fp32", "fp16"}
    assert files["model.onnx"]["gates"]["deployed"]["test_split"]["difference"] < 1e-5
    largest = float(np.abs(known(head).outputs["logits"]).max())
    assert ("fp16" in left_out) == (largest > 60_000)


def spoilt(right: Path, path: Path, value: float) -> Path:
    """Write ``right`` with ``value`` for one weight."""
    model = onnx.load(right)
    weights = next(item for item in model.graph.initializer if len(item.dims) == 4)
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = value
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, path)
    return path


def test_a_conversion_that_fails_is_a_failed_gate(right: Path, tmp_path: Path) -> None:
    calibration = Calibration(make_split(40).pixels, "float32", "percentile")
    source = spoilt(right, tmp_path / "source.onnx", float("nan"))
    with pytest.raises(GateError, match=r"^model.int8-cpu.onnx: ONNX Runtime's quantizer could not make it \("):
        quantize_for_cpu(source, tmp_path / "model.int8-cpu.onnx", calibration)
    assert not (tmp_path / "model.int8-cpu.onnx").exists()


def test_what_float16_cannot_hold_is_left_out_and_what_is_required_stops(
    right: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = export(make_network(), tmp_path, ("fp32", "fp16"))
    path = next(file.path for file in found.files if file.precision == "fp16")
    calibration = Calibration(make_split(2).pixels, "float32", "minmax")
    convert_to_half(spoilt(right, tmp_path / "source.onnx", 1e9), path, calibration)
    required = ExportOnnx.model_validate(ExportOnnx().model_dump() | {"required": ("fp32", "fp16")})
    with pytest.raises(GateError, match=r"^model.fp16.onnx, .*; export_onnx.required demands fp16: .* fp16 out of it"):
        describe_files(found, known(), required)
    files, left_out = describe_files(found, known(), ExportOnnx())
    assert list(files) == ["model.onnx"]
    assert not path.exists()
    assert left_out["fp16"].startswith("model.fp16.onnx, test split")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "fp16 is left out" in warning
    assert "export_onnx.precisions" in warning
