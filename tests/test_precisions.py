"""The files of each precision: what is in them, how they are verified, and that a bad one is refused."""

import hashlib
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from models.deploy import SampledNetwork
from models.students import build_flow_student
from pipeline.core.arrays import Outputs
from pipeline.core.errors import GateError
from pipeline.data.dataset import Split
from pipeline.export.calibration import Calibration
from pipeline.export.onnx.files import Exported, Exports, Source, check_tensorrt, export_precisions
from pipeline.export.onnx.manifest import describe_files
from pipeline.export.onnx.onnxruntime_quantization import quantize_for_tensorrt
from pipeline.export.precisions import PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.export.tensorrt.operator_support import check_precision
from pipeline.runtimes.base import predict
from pipeline.runtimes.onnx import OnnxRuntime, available_providers
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.tasks.classification.task import Classification
from pipeline.tasks.gate import Gate, PlacedGate
from pipeline.tasks.reference import reference
from pipeline.tasks.verification import Reference, verify

OPEN = Gate(max_difference=None, min_agreement=0.01, max_drop=1.0)
EXACT = Gate()
GATES = {"fp32": EXACT, "fp16": replace(EXACT, max_difference=0.1), "int8-cpu": OPEN, "int8-trt": OPEN}
"""Of the precisions whose files are known here."""
TASK = Classification()
CLASS_NAMES = ["a", "b", "c", "d"]


def make_split(count: int = 12) -> Split:
    images = torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Split(images, ClassTargets(torch.arange(count) % 4))


def settings(*, gates: dict[str, Gate] | None = None, **changes: Any) -> ExportOnnx:
    """Return the default settings with ``changes``."""
    content = ExportOnnx().model_dump() | changes
    content["gates"] = {name: asdict(gate) for name, gate in {**GATES, **(gates or {})}.items()}
    return ExportOnnx.model_validate(content)


def make_source(**changes: Any) -> Source:
    """Return a student of two steps, and how it is exported: by the default settings with ``changes``."""
    torch.manual_seed(0)
    names: dict[str, Any] = {"backbone": "wrn_16_1", "schedule": "rectified", "meta_encoder": "conv"}
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    network = SampledNetwork(build_flow_student(num_classes=4, time_scale=1.0, **names, **statistics), 2)
    chosen = settings(**changes)
    signature = TASK.signature(image_size=(16, 16), input_dtype=chosen.input, class_names=CLASS_NAMES)
    calibration = make_split(40).pixels
    return Source(network.eval(), signature, TASK.training(), calibration, {"method": "fm_kt"}, chosen)


def known_answers() -> Reference:
    source = make_source()
    return reference(TASK, source.network, source.signature, make_split())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """Return a student of two steps in each precision of ``GATES``, by precision."""
    files = export_precisions(make_source(), tmp_path_factory.mktemp("precisions"), list(GATES)).files
    return {file.precision: file for file in files}


@pytest.fixture(scope="module")
def of_bytes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    """Return some files of the same student that take images as bytes, none of them collapsed."""
    source = make_source(input="uint8", collapse=False)
    files = export_precisions(source, tmp_path_factory.mktemp("bytes"), ["fp32", "fp16", "int8-cpu"]).files
    return {file.precision: file for file in files}


def graph_of(exported: Exported) -> onnx.GraphProto:
    return onnx.load(exported.path).graph


def test_floats_take_the_smallest_form_and_int8_keeps_its_last_convolution(exported: dict[str, Exported]) -> None:
    forms = {precision: file.form for precision, file in exported.items()}
    assert forms == {"fp32": "collapsed", "fp16": "collapsed", "int8-cpu": "folded", "int8-trt": "folded"}
    convolutions = {precision: sum(n.op_type == "Conv" for n in graph_of(f).node) for precision, f in exported.items()}
    assert convolutions["int8-trt"] == convolutions["fp32"] + 1 == convolutions["fp16"] + 1


def test_fp16_has_float32_at_its_ends_and_in_its_norms(exported: dict[str, Exported]) -> None:
    graph = graph_of(exported["fp16"])
    assert [x.type.tensor_type.elem_type for x in (*graph.input, *graph.output)] == [TensorProto.FLOAT] * 2
    types = {x.name: x.data_type for x in graph.initializer}
    weights = {types[name] for n in graph.node if n.op_type in {"Conv", "Gemm"} for name in n.input if name in types}
    assert weights == {TensorProto.FLOAT16}
    made_by = {name: node for node in graph.node for name in node.output}
    norms = [node for node in graph.node if node.op_type in {"InstanceNormalization", "BatchNormalization"}]
    assert norms
    assert all(made_by[node.input[0]].op_type == "Cast" for node in norms), "what is normalised is float32 again"
    assert check_precision(onnx.load(exported["fp16"].path), PRECISIONS["fp16"]) == []
    assert exported["fp16"].path.stat().st_size < 0.65 * exported["fp32"].path.stat().st_size


@pytest.mark.parametrize("precision", ["int8-cpu", "int8-trt"])
def test_int8_weights_are_per_channel_and_zero_points_are_what_the_target_takes(
    precision: str, exported: dict[str, Exported]
) -> None:
    graph = graph_of(exported[precision])
    values = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    zeros = [values[node.input[2]] for node in graph.node if node.op_type == "DequantizeLinear"]
    activations = [values[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    convolved = [node.input[1] for node in graph.node if node.op_type == "Conv"]
    made_by = {node.output[0]: node for node in graph.node}
    kernels = [values[made_by[name].input[0]] for name in convolved]
    scales = [values[made_by[name].input[1]] for name in convolved]
    assert all(kernel.dtype == np.int8 for kernel in kernels)
    assert all(scale.shape == (len(kernel),) for kernel, scale in zip(kernels, scales, strict=True))
    if precision == "int8-trt":
        assert all((zero == 0).all() and zero.dtype == np.int8 for zero in (*zeros, *activations))
    else:
        assert {zero.dtype for zero in activations} == {np.dtype(np.uint8)}
        assert max(np.abs(kernel.astype(int)).max() for kernel in kernels) <= 64, "7 bits: sums of two products fit"


def test_the_static_check_of_tensorrt_tells_them_apart(exported: dict[str, Exported]) -> None:
    accepted = {precision: check_tensorrt(file)["10"]["accepted"] for precision, file in exported.items()}
    assert accepted == {"fp32": True, "fp16": True, "int8-cpu": False, "int8-trt": True}
    posing = Exported(exported["int8-cpu"].path, "int8-trt", "folded")
    with pytest.raises(GateError, match=r"model.int8-cpu.onnx: TensorRT would refuse it \(static check\): .*INT32"):
        check_tensorrt(posing)


def test_every_file_is_verified_and_int8_also_without_optimization(exported: dict[str, Exported]) -> None:
    chosen = settings(batch_sizes=(1, 3, 64))
    entries = describe_files(Exports(list(exported.values()), {}), known_answers(), chosen).files
    levels = {entry["precision"]: sorted(entry["gates"]) for entry in entries.values()}
    both = ["deployed", "unoptimized"]
    assert levels == {"fp32": ["deployed"], "fp16": ["deployed"], "int8-cpu": both, "int8-trt": both}
    for name, entry in entries.items():
        path = next(file.path for file in exported.values() if file.path.name == name)
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        for figures in entry["gates"].values():
            assert set(figures) == {"batch_1", "batch_3", "batch_12", "test_split"}
            found = figures["test_split"]
            assert found["num_images"] == 12
            assert found["difference"] == pytest.approx(found["max_abs"] / found["spread"], rel=0.5)


def test_int8_computes_the_same_with_and_without_optimization(exported: dict[str, Exported]) -> None:
    """8-bit weights would overflow in silence on CPUs without VNNI, in the optimized graph alone."""
    pixels = make_split(40).pixels
    for precision in ("int8-cpu", "int8-trt"):
        runtimes = (OnnxRuntime(exported[precision].path, optimize=level) for level in (True, False))
        deployed, plain = (predict(runtime, pixels, 40)["logits"] for runtime in runtimes)
        np.testing.assert_allclose(deployed, plain, atol=0.1 * np.abs(plain).max(), err_msg=precision)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8-trt"])
def test_a_file_that_is_not_good_enough_is_named_with_the_figure(precision: str, exported: dict[str, Exported]) -> None:
    gates = {precision: replace(EXACT, max_difference=1e-12)}
    chosen = settings(gates=gates, batch_sizes=(1,), required=("fp32", "fp16", "int8-trt"))
    name = exported[precision].path.name
    with pytest.raises(GateError) as raised:
        describe_files(Exports([exported[precision]], {}), known_answers(), chosen)
    message = str(raised.value)
    found = r"outputs differ by \S+, \S+ of their spread \(\S+\); allowed are 1e-12 of it"
    key = rf"\(export_onnx.gates.{precision}.max_difference\); loosen that bound to accept it"
    assert re.match(rf"{name}, test split, 12 images: {found} {key}; export_onnx.required demands {precision}", message)
    assert ("take" in message) == (precision != "fp32")


def test_int8_is_verified_at_every_batch_size() -> None:
    class Broken:
        """Right for all images at once, wrong for fewer."""

        input_dtype = "float32"

        def infer(self, images: np.ndarray) -> Outputs:
            return {"logits": logits if len(images) == 12 else np.zeros_like(logits[: len(images)])}

        def describe(self) -> str:
            return "broken"

    logits = np.eye(4, dtype=np.float32)[np.arange(12) % 4][:, ::-1].copy()
    split = make_split()
    known = Reference(TASK, split.pixels, split.targets.truth(), {"logits": logits})
    gate = PlacedGate(replace(OPEN, min_agreement=0.95), "gates.int8", "")
    with pytest.raises(
        GateError, match=r"int8, batch of 3: outputs differ by 1, .* of their spread, from those in another batch size"
    ):
        verify(Broken(), known, gate, what="int8", batch_size=12, batch_sizes=[3, 12])


def test_images_as_bytes_give_what_images_in_zero_to_one_give(
    exported: dict[str, Exported], of_bytes: dict[str, Exported]
) -> None:
    pixels = np.ascontiguousarray(make_split().pixels)
    for precision, file in of_bytes.items():
        assert graph_of(file).input[0].type.tensor_type.elem_type == TensorProto.UINT8
        runtime, other = OnnxRuntime(file.path), OnnxRuntime(exported[precision].path)
        assert (runtime.input_dtype, other.input_dtype) == ("uint8", "float32")
        found, wanted = runtime.infer(pixels)["logits"], other.infer(pixels / np.float32(255))["logits"]
        np.testing.assert_allclose(found, wanted, atol=2e-2)


def test_ranges_follow_from_the_images_and_the_method(of_bytes: dict[str, Exported], tmp_path: Path) -> None:
    pixels = make_split(40).pixels
    calibrations = {
        "all": Calibration(pixels, "uint8", "minmax"),
        "again": Calibration(pixels, "uint8", "minmax"),
        "method": Calibration(pixels, "uint8", "percentile"),
        "darker": Calibration(pixels // 2, "uint8", "minmax"),
    }
    for name, calibration in calibrations.items():
        quantize_for_tensorrt(of_bytes["fp32"].path, tmp_path / name, calibration)
    contents = {name: (tmp_path / name).read_bytes() for name in calibrations}
    assert contents["all"] == contents["again"]
    assert len(set(contents.values())) == 3


def test_an_unknown_method_precision_or_provider_is_named(exported: dict[str, Exported], tmp_path: Path) -> None:
    calibration = Calibration(make_split().pixels, "float32", "median")
    with pytest.raises(ValueError, match=r"unknown calibration method 'median'; known: minmax, percentile"):
        quantize_for_tensorrt(exported["fp32"].path, tmp_path / "x.onnx", calibration)
    with pytest.raises(ValueError, match=r"unknown precision 'int4'; known: fp32, fp16, int8-cpu, int8-trt"):
        PRECISIONS["int4"]
    with pytest.raises(ValueError, match=r"unknown provider 'gpu'; did you mean cpu\? known: cpu, cuda, tensorrt"):
        OnnxRuntime(exported["fp32"].path, provider="gpu")
    for provider in {"cuda", "tensorrt"} - set(available_providers()):
        with pytest.raises(ValueError, match=rf"--provider: got '{provider}', which is not available here; it needs"):
            OnnxRuntime(exported["fp32"].path, provider=provider)
