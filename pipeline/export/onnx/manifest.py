"""What the manifest says of each ONNX file: how it was made, and that it passed its gate."""

import logging
from collections.abc import Sequence

from pipeline.core.files import Json, sha256
from pipeline.export.onnx.files import Exported, check_tensorrt
from pipeline.export.precisions import PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.verification import Reference, Verified, verify

logger = logging.getLogger(__name__)


def describe_files(exported: Sequence[Exported], reference: Reference, settings: ExportOnnx) -> Json:
    """Verify each file on the test split and return its entry of the manifest, by the file's name.

    Every file is verified as it is deployed, with ONNX Runtime's rewriting of the graph; a quantized file without it
    too, since the rewriting decides which operators compute in INT8.

    Args:
        reference: the test split with the trained network's answers.

    Raises:
        GateError: a file does not pass; names it and the figure.
    """
    entries: Json = {}
    for file in exported:
        levels = {"deployed": True} | ({"unoptimized": False} if PRECISIONS[file.precision].quantized else {})
        figures: Json = {}
        for level, optimize in levels.items():
            what = file.path.name if optimize else f"{file.path.name}, without graph optimization"
            found = verify(
                OnnxRuntime(file.path, optimize=optimize),
                reference,
                settings.gate(file.precision),
                what=f"{what}, test split",
                batch_size=max(settings.batch_sizes),
                batch_sizes=settings.batch_sizes,
            )
            figures[level] = _figures(found, reference)
        deployed = figures["deployed"]["test_split"]
        logger.info(
            "verified %s: outputs differ by at most %.2g, %.2f%% same answers, %s %.2f%%",
            file.path.name,
            deployed["max_abs"],
            100 * deployed["top1_agreement"],
            reference.task.primary,
            100 * deployed[reference.task.primary],
        )
        entry: Json = {"precision": file.precision, "form": file.form, "gates": figures}
        entry |= {"sha256": sha256(file.path), "bytes": file.path.stat().st_size}
        entries[file.path.name] = entry | {"tensorrt_static_check": check_tensorrt(file)}
    return entries


def _figures(found: Verified, reference: Reference) -> Json:
    primary = reference.task.primary
    by_batch = {f"batch_{count}": parity._asdict() for count, parity in found.by_batch.items()}
    whole = found.parity._asdict() | {primary: found.scores[primary], "drop": found.drop, "num_images": len(reference)}
    return {**by_batch, "test_split": whole}
