"""The ONNX files of a student: one for each precision, each proved before it is kept."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from pipeline.core.errors import GateError
from pipeline.core.files import Json
from pipeline.export.onnx.exporter import export_onnx
from pipeline.export.onnx.fp16 import convert_to_half
from pipeline.export.onnx.graph_form import Form, smallest_form
from pipeline.export.onnx.onnxruntime_quantization import RECIPES, quantize
from pipeline.export.tensorrt.operator_support import MAJORS, check_support
from pipeline.runtimes.base import to_input

FP32 = "model.onnx"
PRECISIONS = ("fp32", "fp16", "int8-cpu", "int8-trt")


def file_name(precision: str) -> str:
    """Return the name of the ONNX file of ``precision``."""
    return FP32 if precision == "fp32" else f"model.{precision}.onnx"


class Source(NamedTuple):
    """What all files of a student are made from."""

    student: torch.nn.Module
    num_steps: int | None
    calibration: NDArray[np.uint8]
    """Images (N, 3, H, W) on which rewritings are proved and the ranges of INT8 activations are found."""
    metadata: Mapping[str, str]
    opset: int
    input_dtype: str
    collapse: bool
    method: str
    """How INT8 ranges are found; see ``pipeline.export.onnx.onnxruntime_quantization``."""


class Exported(NamedTuple):
    """One file."""

    path: Path
    precision: str
    form: str


def export_precisions(source: Source, folder: Path, precisions: Sequence[str]) -> list[Exported]:
    """Write the file of each of ``precisions``, fp32 among them, into ``folder``; return them, fp32 first.

    fp32 is written from the smallest form and fp16 from that file; INT8 from the smallest form whose last convolution
    is still one, so that it can be INT8.

    Raises:
        GateError: a rewriting is wrong, or a file is no valid ONNX of the opset that was asked for.
    """
    images = torch.from_numpy(source.calibration)
    form = smallest_form(source.student, source.num_steps, images, collapse=source.collapse)
    full = Exported(folder / FP32, "fp32", form.name)
    _write(source, form, full.path)
    with tempfile.TemporaryDirectory() as work:
        wide = full
        if form.name == "collapsed" and any(precision in RECIPES for precision in precisions):
            form = smallest_form(source.student, source.num_steps, images, collapse=False)
            wide = Exported(Path(work, FP32), "fp32", form.name)
            _write(source, form, wide.path)
        chosen = [precision for precision in PRECISIONS if precision in precisions and precision != "fp32"]
        return [
            full,
            *(_derive(source, precision, wide if precision in RECIPES else full, folder) for precision in chosen),
        ]


def _write(source: Source, form: Form, path: Path) -> None:
    export_onnx(
        form.network, path, image_size=source.calibration.shape[2:], opset=source.opset, metadata=source.metadata,
        input_dtype=source.input_dtype,
    )  # fmt: skip


def _derive(source: Source, precision: str, full: Exported, folder: Path) -> Exported:
    """Write the file of ``precision`` into ``folder``, made from the float32 file ``full``."""
    path = folder / file_name(precision)
    if precision == "fp16":
        convert_to_half(full.path, path)
    else:
        shown = to_input(source.calibration, source.input_dtype)
        quantize(full.path, path, shown, precision=precision, method=source.method)
    return Exported(path, precision, full.form)


def check_tensorrt(exported: Exported) -> Json:
    """Return what the static check says of each major version of TensorRT: accepted, or the reasons why not.

    Raises:
        GateError: the file is made for TensorRT, and no version accepts it.
    """
    model = onnx.load(exported.path)
    found = {str(major): check_support(model, major) for major in MAJORS}
    if exported.precision == "int8-trt" and not any(support.accepted for support in found.values()):
        reasons = "; ".join(reason for support in found.values() for reason in support.reasons[:2])
        raise GateError(f"{exported.path.name}: TensorRT would refuse it (static check): {reasons}")
    return {major: support.report() for major, support in found.items()}
