"""The static check: graphs that TensorRT's parser takes, and those that it is known to refuse."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import nn

from models.deploy import with_num_steps
from models.students import build_flow_student
from pipeline.core.signature import image_input
from pipeline.export.calibration import Calibration
from pipeline.export.onnx.exporter import export_image_network
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.precisions import PRECISIONS
from pipeline.export.tensorrt.operator_support import MAJORS, Support, check_precision, check_support, read_table

Files = Callable[[str], onnx.ModelProto]
IMAGE = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
TRT_INT8 = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"],
}
NOT_CALIBRATED = Calibration(np.zeros((0, 3, 8, 8), np.uint8), "float32", "minmax")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Four random images."""

    def __init__(self) -> None:
        images = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
        self.batches = iter([{"image": images}])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def quantized(source: Path, path: Path, **options: Any) -> None:
    """Write ``source`` with pairs of QuantizeLinear and DequantizeLinear; options left out are ONNX Runtime's."""
    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Return a function that gives a student's file by what was made of it; each is made once."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    statistics = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    names = {"backbone": "resnet8", "schedule": "rectified", "meta_encoder": "conv"}
    student = build_flow_student(num_classes=4, time_scale=1.0, **names, **statistics).eval()
    network = with_num_steps(student, 2).general_form()
    small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    small.append(nn.Linear(4, 4))
    signed = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}

    def export(module: nn.Module, path: Path, *, opset: int = 20, dtype: str = "float32") -> None:
        export_image_network(module, path, image_input((8, 8), dtype), ["logits"], opset=opset, metadata={})

    make: dict[str, Callable[[Path], None]] = {
        "fp32": lambda path: export(network, path),
        "fp16": lambda path: convert_to_half(folder / "fp32.onnx", path, NOT_CALIBRATED),
        "bytes": lambda path: export(small, path, dtype="uint8"),
        "opset 22": lambda path: export(small, path, opset=22),
        "int8 for TensorRT": lambda path: quantized(
            folder / "fp32.onnx", path, op_types_to_quantize=["Conv", "Gemm"], extra_options=TRT_INT8, **signed
        ),
        "int8 by default": lambda path: quantized(folder / "fp32.onnx", path, **signed),
        "int8 for CPUs": lambda path: quantized(
            folder / "fp32.onnx", path, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8
        ),
    }

    def get(name: str) -> onnx.ModelProto:
        path = folder / f"{name}.onnx"
        if not path.exists():
            make[name](path)
        return onnx.load(path)

    get("fp32")
    return get


def graph(
    nodes: list[onnx.NodeProto],
    *,
    output: int = TensorProto.FLOAT,
    opset: int = 20,
    inputs: list[Any] | None = None,
    **constants: Any,
) -> onnx.ModelProto:
    """Return a model from ``image`` to ``logits`` with ``constants`` as initializers."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    result = helper.make_tensor_value_info("logits", output, None)
    content = helper.make_graph(nodes, "small", inputs or [IMAGE], [result], tensors)
    return helper.make_model(content, opset_imports=[helper.make_opsetid("", opset)])


def refused(support: Support, *words: str) -> None:
    """Assert that one reason has all ``words``."""
    assert not support.accepted
    assert any(all(word in reason for word in words) for reason in support.reasons), support.reasons


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("name", ["fp32", "fp16", "bytes", "int8 for TensorRT"])
def test_files_for_tensorrt_are_accepted(name: str, major: int, files: Files) -> None:
    found = check_support(files(name), major)
    assert found == Support(accepted=True, reasons=[], note=found.note)
    assert found.note.startswith("static, not a guarantee")
    assert read_table(major).source in found.note
    assert found.report() == {"accepted": True, "reasons": [], "note": found.note}


@pytest.mark.parametrize("major", MAJORS)
def test_int32_biases_are_refused(major: int, files: Files) -> None:
    found = check_support(files("int8 by default"), major)
    refused(found, "DequantizeLinear", "is INT32", "quantize without biases")
    wide = {w.name for w in files("int8 by default").graph.initializer if w.data_type == TensorProto.INT32}
    biases = [
        node for node in files("int8 by default").graph.node if node.op_type.startswith("De") and node.input[0] in wide
    ]
    assert len([reason for reason in found.reasons if "INT32" in reason]) == len(biases) > 0


@pytest.mark.parametrize("major", MAJORS)
def test_unsigned_activations_with_zero_points_are_refused(major: int, files: Files) -> None:
    found = check_support(files("int8 for CPUs"), major)
    refused(found, ", QuantizeLinear: ", "is UINT8")
    refused(found, ", QuantizeLinear: ", "zero_point is not 0; quantize symmetrically")


def test_opset_22_needs_tensorrt_11(files: Files) -> None:
    model = files("opset 22")
    found = check_support(model, 10)
    assert found.reasons == ["opset 22: TensorRT 10 takes 9 to 20"]
    assert check_support(model, 11).accepted


@pytest.mark.parametrize("major", MAJORS)
def test_operators_of_onnx_runtime_are_refused(major: int) -> None:
    node = helper.make_node("FusedConv", ["image", "w"], ["logits"], name="conv1", domain="com.microsoft")
    model = graph([node], w=np.zeros((4, 3, 3, 3), np.float32))
    model.opset_import.add(domain="com.microsoft", version=1)
    refused(check_support(model, major), "conv1, FusedConv: domain com.microsoft is unknown to TensorRT")


@pytest.mark.parametrize("major", MAJORS)
def test_computed_axes_are_refused_and_constant_ones_are_not(major: int) -> None:
    cast = helper.make_node("Cast", ["scalar"], ["axes"], to=TensorProto.INT64)
    mean = helper.make_node("ReduceMean", ["image", "axes"], ["logits"], name="mean")
    refused(
        check_support(graph([cast, mean], scalar=np.float32([2])), major),
        "mean, ReduceMean: axes is computed, and must be a constant",
    )
    assert check_support(graph([mean], axes=np.int64([2, 3])), major).accepted
    constant = helper.make_node("Constant", [], ["axes"], value_ints=[2, 3])
    assert check_support(graph([constant, mean]), major).accepted


def test_axes_of_slice_may_be_computed_on_tensorrt_11_alone() -> None:
    nodes = [
        helper.make_node("Cast", ["scalar"], ["axes"], to=TensorProto.INT64),
        helper.make_node("Slice", ["image", "one", "two", "axes"], ["logits"], name="cut"),
    ]
    model = graph(nodes, scalar=np.float32([2]), one=np.int64([1]), two=np.int64([2]))
    refused(check_support(model, 10), "cut, Slice: axes is computed")
    assert check_support(model, 11).accepted


@pytest.mark.parametrize("major", MAJORS)
def test_operators_outside_the_table_are_refused(major: int) -> None:
    texts = helper.make_tensor_value_info("image", TensorProto.STRING, ["batch"])
    node = helper.make_node("StringConcat", ["image", "image"], ["logits"], name="twice")
    refused(
        check_support(graph([node], output=TensorProto.STRING, inputs=[texts]), major),
        "twice, StringConcat: the operator is not supported",
    )


@pytest.mark.parametrize("major", MAJORS)
def test_types_are_those_of_the_table(major: int) -> None:
    doubled = helper.make_node("Cast", ["image"], ["double"], to=TensorProto.DOUBLE)
    relu = helper.make_node("Relu", ["double"], ["logits"], name="relu")
    model = graph([doubled, relu], output=TensorProto.DOUBLE)
    refused(check_support(model, major), "relu, Relu: double is DOUBLE, supported are FP32, FP16, BF16, INT32, INT64")


@pytest.mark.parametrize("major", MAJORS)
def test_bytes_are_for_a_cast_alone(major: int) -> None:
    pixels = helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 3, 8, 8])
    nodes = [
        helper.make_node("Transpose", ["image"], ["turned"], name="turn", perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["turned"], ["logits"], name="cast", to=TensorProto.FLOAT),
    ]
    found = check_support(graph(nodes, inputs=[pixels]), major)
    refused(found, "turn, Transpose: image is UINT8", "network inputs that a Cast takes")
    within = [
        helper.make_node("Cast", ["image"], ["bytes"], name="down", to=TensorProto.UINT8),
        helper.make_node("Cast", ["bytes"], ["logits"], name="up", to=TensorProto.FLOAT),
    ]
    refused(check_support(graph(within), major), "up, Cast: bytes is UINT8 within the network")


POOL = {"kernel_shape": [2, 2]}


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("MaxPool", ["image"], ["logits", "where"], name="n", **POOL), "only 1 of its outputs"),
        (
            helper.make_node("AveragePool", ["image"], ["logits"], name="n", dilations=[2, 2], **POOL),
            "dilations must be",
        ),
        (helper.make_node("MaxPool", ["image"], ["logits"], name="n", kernel_shape=[2]), "pools over 1 axes"),
        (helper.make_node("Resize", ["image", "", "s"], ["logits"], name="n", mode="cubic"), "mode is cubic"),
        (helper.make_node("Resize", ["image", "", "s"], ["logits"], name="n", antialias=1), "antialias is 1"),
        (helper.make_node("Constant", [], ["logits"], name="n", value_string="a"), "value_string is not supported"),
        (helper.make_node("LayerNormalization", ["image", "s"], ["logits", "m"], name="n"), "only 1 of its outputs"),
        (helper.make_node("GridSample", ["five", "g"], ["logits"], name="n"), "five has 5 axes, supported are 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op_type,
)
@pytest.mark.parametrize("major", MAJORS)
def test_restrictions_of_single_operators(node: onnx.NodeProto, words: str, major: int) -> None:
    values = {
        "s": np.float32([1, 1, 2, 2]),
        "five": np.zeros((1,) * 5, np.float32),
        "g": np.zeros((1,) * 5, np.float32),
    }
    used = {name: value for name, value in values.items() if name in node.input}
    refused(check_support(graph([node], **used), major), f"n, {node.op_type}: ", words)


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown major version of TensorRT '8'; known: 10, 11"):
        check_support(graph([helper.make_node("Relu", ["image"], ["logits"])]), 8)


def test_the_table_is_whole() -> None:
    """Every operator is one of ONNX's or of its older versions, and the tables say where they come from."""
    schemas = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    older = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
    for major in MAJORS:
        table = read_table(major)
        assert set(table.operators) - schemas <= older
        assert len(table.operators) > 140
        assert "operators.md" in table.source
    assert set(read_table(10).operators) < set(read_table(11).operators)


@pytest.mark.parametrize(
    ("name", "precision"), [("fp32", "fp32"), ("fp16", "fp16"), ("bytes", "fp32"), ("int8 for TensorRT", "int8-trt")]
)
def test_types_decide_what_precision_a_file_has(name: str, precision: str, files: Files) -> None:
    assert check_precision(files(name), PRECISIONS[precision]) == []


@pytest.mark.parametrize(
    ("name", "precision", "words"),
    [
        ("fp32", "fp16", "Conv: computes in FP32"),
        ("fp16", "fp32", "Conv: computes in FP16"),
        ("fp32", "int8-trt", "nothing in it is quantized"),
        ("int8 for TensorRT", "fp32", "is quantized"),
    ],
)
def test_a_file_of_another_precision_is_found_out(name: str, precision: str, words: str, files: Files) -> None:
    assert words in check_precision(files(name), PRECISIONS[precision])[0]
