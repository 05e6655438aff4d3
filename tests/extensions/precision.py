"""A precision: float32 whose weights have the 8 significant bits of bfloat16."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from pipeline.export.calibration import Calibration
from pipeline.export.onnx.exporter import describe, write_onnx


def round_weights(source: Path, path: Path, calibration: Calibration) -> None:  # noqa: ARG001  (signature of Derive)
    """Write the float32 ONNX file ``source`` as ``path`` with the lower half of every weight's bits cut off."""
    model = onnx.load(source)
    opset, metadata = describe(model)
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            bits = numpy_helper.to_array(weight).view(np.uint32) & np.uint32(0xFFFF0000)
            weight.CopyFrom(numpy_helper.from_array(bits.view(np.float32), weight.name))
    write_onnx(model, path, opset=opset, metadata=metadata)
