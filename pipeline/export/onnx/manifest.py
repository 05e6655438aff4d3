"""What the manifest says of each ONNX file: how it was made, and that it passed its gate."""

import logging
from typing import NamedTuple

from pipeline.core.errors import GateError
from pipeline.core.files import Json, sha256
from pipeline.export.onnx.files import Exported, Exports, check_tensorrt, open_exported
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.tasks.verification import Reference, Verified, verify

logger = logging.getLogger(__name__)


class Described(NamedTuple):
    """What was found of the files."""

    files: Json
    """The entry of each file that passed, by its name."""
    left_out: dict[str, str]
    """From each precision that did not to the reason."""


def describe_files(exported: Exports, reference: Reference, settings: ExportOnnx) -> Described:
    """Verify each file on the test split; delete what does not pass.

    Every file is verified as it is deployed, with ONNX Runtime's rewriting of the graph; a quantized file without it
    too, since the rewriting decides which operators compute in INT8.

    Args:
        reference: the test split with the trained network's answers.

    Raises:
        GateError: a precision that ``settings`` require does not pass; names its file, the figure, and what to do.
    """
    files: Json = {}
    left_out = {precision: _left_out(precision, error, settings) for precision, error in exported.failed.items()}
    for file in exported.files:
        try:
            files[file.path.name] = _describe(file, reference, settings)
        except GateError as error:
            left_out[file.precision] = _left_out(file.precision, error, settings)
            file.path.unlink()
    return Described(files, left_out)


def _left_out(precision: str, error: GateError, settings: ExportOnnx) -> str:
    """Return why ``precision`` is left out, and warn of it.

    Raises:
        GateError: it must not be left out.
    """
    if precision in settings.required:
        others = f", or take {precision} out of it" if precision != FP32 else ""
        raise GateError(
            f"{error}; export_onnx.required demands {precision}: where training warned, mend that first{others}"
        ) from error
    logger.warning(
        "%s; %s is left out: where it is not needed, take it out of export_onnx.precisions and of "
        "export_tensorrt.precisions",
        error,
        precision,
    )
    return str(error)


def _describe(file: Exported, reference: Reference, settings: ExportOnnx) -> Json:
    """Verify ``file`` and return its entry of the manifest.

    Raises:
        GateError: it does not pass; names it and the figure.
    """
    levels = {"deployed": True} | ({"unoptimized": False} if PRECISIONS[file.precision].quantized else {})
    figures: Json = {}
    for level, optimize in levels.items():
        what = file.path.name if optimize else f"{file.path.name}, without graph optimization"
        found = verify(
            open_exported(file, optimize=optimize),
            reference,
            settings.gates.placed(file.precision),
            what=f"{what}, test split",
            batch_size=max(settings.batch_sizes),
            batch_sizes=settings.batch_sizes,
        )
        figures[level] = _figures(found, reference)
    deployed = figures["deployed"]["test_split"]
    logger.info(
        "verified %s: outputs differ by at most %.2g of their spread, %.2f%% same answers, %s %.2f%%",
        file.path.name,
        deployed["difference"],
        100 * deployed["agreement"],
        reference.task.primary,
        100 * deployed[reference.task.primary],
    )
    entry: Json = {"precision": file.precision, "form": file.form, "gates": figures}
    entry |= {"sha256": sha256(file.path), "bytes": file.path.stat().st_size}
    return entry | {"tensorrt_static_check": check_tensorrt(file)}


def _figures(found: Verified, reference: Reference) -> Json:
    primary = reference.task.primary
    by_batch = {f"batch_{count}": parity._asdict() for count, parity in found.by_batch.items()}
    whole = found.parity._asdict() | {primary: found.scores[primary], "drop": found.drop, "num_images": len(reference)}
    whole |= {reference.task.primary_error: found.standard_error}
    return {**by_batch, "test_split": whole}
