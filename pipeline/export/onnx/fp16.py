"""FP16 from an FP32 file, whose constants are folded in float32 before they are rounded."""

import warnings
from pathlib import Path

import onnx
from onnxconverter_common.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

from pipeline.export.calibration import Calibration
from pipeline.export.onnx.exporter import converting, describe, write_onnx

NORMS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization")
"""Operators that stay in float32: a sum over a feature map overflows in float16."""


def convert_to_half(source: Path, path: Path, calibration: Calibration) -> None:  # noqa: ARG001  (signature of Derive)
    """Write the float32 ONNX file ``source`` as ``path`` in float16, but for its normalisations, inputs and outputs.

    Raises:
        GateError: the conversion fails, or its result is no valid ONNX.
    """
    original = onnx.load(source)
    opset, metadata = describe(original)
    casts = [node.name for node in original.graph.node if node.op_type == "Cast"]  # of images that are bytes
    with warnings.catch_warnings(), converting(path, "onnxconverter-common"):
        warnings.simplefilter("ignore")  # constants below the smallest float16 become it; the gates judge the result
        model = convert_float_to_float16(
            original, keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *NORMS], node_block_list=casts
        )
    write_onnx(model, path, opset=opset, metadata=metadata)
