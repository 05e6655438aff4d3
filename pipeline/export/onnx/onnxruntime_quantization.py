"""INT8 by ONNX Runtime's static quantization, for its own CPU kernels or for TensorRT's parser."""

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.core.table import choose
from pipeline.export.calibration import Calibration
from pipeline.export.onnx.exporter import converting, describe, write_onnx
from pipeline.runtimes.base import to_input

CALIBRATION_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}
BATCH = 32


class QuantizationConfig(NamedTuple):
    """What of a graph becomes INT8, and how."""

    activations: QuantType
    reduce_range: bool
    """Whether weights take 7 bits."""
    operators: list[str] | None
    """None: all that ONNX Runtime can quantize."""
    options: dict[str, Any]


QUANTIZED_OPERATORS = ["Conv", "Gemm", "MatMul"]
# unsigned activations and signed weights are what CPUs multiply fastest; those without VNNI add two products in 16
# bits, which 8-bit weights overflow without a sign
FOR_CPU = QuantizationConfig(QuantType.QUInt8, reduce_range=True, operators=None, options={})
# TensorRT takes zero points of 0 alone and no int32 biases, and fuses a layer with what quantizes its inputs
FOR_TENSORRT = QuantizationConfig(
    QuantType.QInt8,
    reduce_range=False,
    operators=QUANTIZED_OPERATORS,
    options={
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": QUANTIZED_OPERATORS,
    },
)


def quantize_for_cpu(source: Path, path: Path, calibration: Calibration) -> None:
    """Write the float32 ONNX file ``source`` as ``path`` for ONNX Runtime's CPU kernels; see ``quantize``."""
    quantize(source, path, calibration, FOR_CPU)


def quantize_for_tensorrt(source: Path, path: Path, calibration: Calibration) -> None:
    """Write the float32 ONNX file ``source`` as ``path`` for TensorRT's parser; see ``quantize``."""
    quantize(source, path, calibration, FOR_TENSORRT)


def quantize(source: Path, path: Path, calibration: Calibration, config: QuantizationConfig) -> None:
    """Write the float32 ONNX file ``source`` as ``path`` with INT8 weights, per channel, and INT8 activations.

    Raises:
        ValueError: the method of ``calibration`` is unknown.
        GateError: the quantizer fails, or its result is no valid ONNX.
    """
    method = choose(CALIBRATION_METHODS, calibration.method, kind="calibration method")
    images = to_input(calibration.pixels, calibration.input_dtype)
    original = onnx.load(source)
    with tempfile.TemporaryDirectory() as folder, _quiet(), converting(path, "ONNX Runtime's quantizer"):
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(quantized),
            _Images(original.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=config.reduce_range,
            activation_type=config.activations,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
            op_types_to_quantize=config.operators,
            extra_options=config.options,
        )
        model = onnx.load(quantized)
    opset, metadata = describe(original)
    write_onnx(model, path, opset=opset, metadata=metadata)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: NDArray[Any]) -> None:
        self.name = name
        self.batches: Iterator[NDArray[Any]] = iter(np.array_split(images, max(1, len(images) // BATCH)))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the quantizer's advice about its own steps, which are all taken here, out of the log."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
