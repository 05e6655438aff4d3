"""What the manifest says of each ONNX file: how it was made, and that it passed its gates."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save
from torch import nn

from pipeline.core.files import Json, sha256, write_bytes
from pipeline.data.dataset import Split
from pipeline.export.onnx.precisions import Exported, Source, check_tensorrt
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.classification.parity import Gate
from pipeline.tasks.classification.proof import verify_export, trained_logits

logger = logging.getLogger(__name__)

REFERENCE_BATCH = 256


def describe_files(
    exported: Sequence[Exported],
    source: Source,
    test: Split,
    *,
    batch_sizes: Sequence[int],
    gates: Mapping[str, Mapping[str, Any]],
) -> Json:
    """Prove each file on ``test`` and return its entry of the manifest, by the file's name.

    Every file is judged as it is deployed, with ONNX Runtime's rewriting of the graph; an INT8 file without it too,
    since rewriting decides where INT8 is computed with.

    Args:
        gates: the arguments of ``pipeline.tasks.classification.parity.Gate``, by precision.

    Raises:
        GateError: a file does not pass; names it and the figure.
    """
    reference = trained_logits(source.student, source.num_steps, test, REFERENCE_BATCH)
    entries: Json = {}
    for file in exported:
        gate = Gate(**gates[file.precision])
        levels = {"deployed": True} | ({"unoptimized": False} if file.precision.startswith("int8") else {})
        figures: Json = {}
        for level, optimize in levels.items():
            what = file.path.name if optimize else f"{file.path.name}, without graph optimization"
            figures[level] = verify_export(
                OnnxRuntime(file.path, optimize=optimize), test.pixels, test.labels.numpy(), reference,
                what=what, batch_sizes=batch_sizes, gate=gate,
            )  # fmt: skip
        found = figures["deployed"]["test_split"]
        logger.info(
            "proved %s: logits differ by at most %.2g, %.2f%% same labels, accuracy %.2f%%",
            file.path.name, found["max_abs"], 100 * found["top1_agreement"], 100 * found["accuracy"],
        )  # fmt: skip
        entry: Json = {"precision": file.precision, "form": file.form, "gates": figures}
        entry |= {"sha256": sha256(file.path), "bytes": file.path.stat().st_size}
        entries[file.path.name] = entry | {"tensorrt_static_check": check_tensorrt(file)}
    return entries


def write_samples(path: Path, samples: Split, student: nn.Module, num_steps: int | None) -> None:
    """Write images, labels and the trained network's logits, by which a file or an engine is proved elsewhere."""
    logits = trained_logits(student, num_steps, samples, len(samples))
    images = np.ascontiguousarray(samples.pixels)
    write_bytes(path, save({"images": images, "labels": samples.labels.numpy(), "logits": logits}))
