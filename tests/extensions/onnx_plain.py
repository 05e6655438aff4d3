"""A runtime: ONNX Runtime that runs the float32 file as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.runtimes.onnx import OnnxRuntime

if TYPE_CHECKING:
    from pipeline.evaluation.runtimes import Opened, Options


def open_plain(folder: Path, options: Options) -> Opened:
    """Return how the file in ``folder`` is opened without rewriting its graph."""
    return {"fp32": lambda: OnnxRuntime(folder / "model.onnx", num_threads=options.num_threads, optimize=False)}
