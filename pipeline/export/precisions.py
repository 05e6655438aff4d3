"""The table of precisions: each is an ONNX file of its own, made from the float32 file.

To add one: a function that derives its file, in a file of ``pipeline/export/onnx``, and an entry here. Nothing heavy is
imported before an entry is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.core.table import Entry, Table
from pipeline.tasks.gate import Gate

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.export.calibration import Calibration

    Derive = Callable[[Path, Path, Calibration], None]
    """Write, from the float32 ONNX file at the first path, the file at the second."""

FP32 = "fp32"
"""The precision that is always there, from which the others are made."""
TAIL_PREFIX = "tail_"
"""How the names of nodes begin that make the outputs of a body's tensors: they compute in float32 in every file."""


@dataclass(frozen=True, kw_only=True)
class PrecisionEntry(Entry):
    """A precision in the table."""

    load: Callable[[], Derive]
    gate: Gate
    """The default gate."""
    quantized: bool = False
    """Whether ranges are calibrated: the file is made from a graph whose last convolution is still one, and is verified
    without ONNX Runtime's rewriting as well, which decides where INT8 is computed."""
    computes_in: str = "FP32"
    """TensorRT's name of the type of convolutions and products; in a quantized file that of its float32 parts."""
    builds_engines: bool = False
    """Whether TensorRT builds an engine from the file."""
    only_tensorrt: bool = False
    """Whether the file is made for TensorRT alone, so that it is of no use where TensorRT does not take it."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry."""
        yield from super().faults()
        if not isinstance(self.gate, Gate):
            yield f"has the gate {self.gate!r}; give a Gate"

    @property
    def file_name(self) -> str:
        """The name of the ONNX file."""
        return "model.onnx" if self.name == FP32 else f"model.{self.name}.onnx"


def _copy() -> Derive:
    from pipeline.export.onnx.derive import copy_float32

    return copy_float32


def _fp16() -> Derive:
    from pipeline.export.onnx.fp16 import convert_to_half

    return convert_to_half


def _int8_cpu() -> Derive:
    from pipeline.export.onnx.onnxruntime_quantization import quantize_for_cpu

    return quantize_for_cpu


def _int8_trt() -> Derive:
    from pipeline.export.onnx.onnxruntime_quantization import quantize_for_tensorrt

    return quantize_for_tensorrt


INT8_GATE = Gate(max_difference=None, min_agreement=0.95, max_drop=0.01)

PRECISIONS = Table(
    "precision",
    PrecisionEntry(
        name=FP32,
        description="float32, as trained",
        load=_copy,
        gate=Gate(max_difference=1e-4, min_agreement=0.999, max_drop=0.001),
        builds_engines=True,
    ),
    PrecisionEntry(
        name="fp16",
        description="float16, but for normalisations, inputs and outputs",
        load=_fp16,
        gate=Gate(max_difference=0.1, min_agreement=0.995, max_drop=0.005),
        computes_in="FP16",
        builds_engines=True,
    ),
    PrecisionEntry(
        name="int8-cpu",
        description="INT8 for ONNX Runtime's CPU kernels",
        load=_int8_cpu,
        gate=INT8_GATE,
        quantized=True,
    ),
    PrecisionEntry(
        name="int8-trt",
        description="INT8 for TensorRT",
        load=_int8_trt,
        gate=INT8_GATE,
        quantized=True,
        builds_engines=True,
        only_tensorrt=True,
    ),
)


def engine_precisions() -> list[str]:
    """Return the precisions from whose files TensorRT builds engines."""
    return [entry.name for entry in PRECISIONS.values() if entry.builds_engines]
