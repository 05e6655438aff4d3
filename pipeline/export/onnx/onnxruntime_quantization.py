"""INT8 by ONNX Runtime's static quantization: one recipe for its own CPU kernels, one for TensorRT's parser."""

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

from models.choice import choose
from pipeline.export.onnx.exporter import describe, write_onnx

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
}
BATCH = 32


class NetworkSpec(NamedTuple):
    """What of a graph becomes INT8, and how."""

    activations: QuantType
    reduce_range: bool
    """Whether weights take 7 bits."""
    operators: list[str] | None
    """None: all that ONNX Runtime can quantize."""
    options: dict[str, Any]


WEIGHTED = ["Conv", "Gemm", "MatMul"]
RECIPES = {
    # unsigned activations and signed weights are what CPUs multiply fastest; those without VNNI add two products in 16
    # bits, which 8-bit weights overflow in silence
    "int8-cpu": NetworkSpec(QuantType.QUInt8, reduce_range=True, operators=None, options={}),
    # TensorRT takes zero points of 0 alone and no int32 biases, and fuses a layer with what quantizes its inputs
    "int8-trt": NetworkSpec(
        QuantType.QInt8,
        reduce_range=False,
        operators=WEIGHTED,
        options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": WEIGHTED,
        },
    ),
}


def quantize(source: Path, path: Path, pixels: NDArray[Any], *, precision: str, method: str) -> None:
    """Write the float32 ONNX file ``source`` as ``path`` with INT8 weights, per channel, and INT8 activations.

    Args:
        pixels: what the ranges of activations are taken from, as the file takes them, (N, 3, H, W).
        precision: a key of ``RECIPES``.
        method: how a range follows from values: ``minmax`` or ``percentile`` (99.999 of 100 values).

    Raises:
        ValueError: ``precision`` or ``method`` is unknown.
        GateError: the result is no valid ONNX.
    """
    recipe = choose(RECIPES, precision, kind="int8 recipe")
    calibrate = choose(METHODS, method, kind="calibration method")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantized = Path(folder, "prepared.onnx"), Path(folder, "quantized.onnx")
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(quantized),
            _Images(pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=recipe.reduce_range,
            activation_type=recipe.activations,
            weight_type=QuantType.QInt8,
            calibrate_method=calibrate,
            op_types_to_quantize=recipe.operators,
            extra_options=recipe.options,
        )
        model = onnx.load(quantized)
    opset, metadata = describe(onnx.load(source))
    write_onnx(model, path, opset=opset, metadata=metadata)


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, pixels: NDArray[Any]) -> None:
        self.batches: Iterator[NDArray[Any]] = iter(np.array_split(pixels, max(1, len(pixels) // BATCH)))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"image": batch}


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
