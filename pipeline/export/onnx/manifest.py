"""What the manifest says of each ONNX file: how it was made, and that it passed its gate."""

import logging
import shutil
from typing import NamedTuple

from pipeline.core.errors import GateError
from pipeline.core.files import Json, sha256
from pipeline.export.onnx.bodies import verify_body
from pipeline.export.onnx.files import Exported, Exports, check_tensorrt, open_exported
from pipeline.export.precisions import FP32, PRECISIONS
from pipeline.export.settings import ExportOnnx
from pipeline.runtimes.base import Runtime
from pipeline.tasks.verification import Reference, Verified, verify

logger = logging.getLogger(__name__)


class Described(NamedTuple):
    """What was found of the files."""

    files: Json
    """The entry of each file that passed, by its name."""
    left_out: dict[str, str]
    """From each precision that did not to the reason."""


def describe_files(exported: Exports, reference: Reference, settings: ExportOnnx) -> Described:
    """Verify each file on the test split; delete what does not pass, and the bodies of all.

    A file with a tail passes three gates: its body's tensors value by value, then its answers, then its score.
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
            files[file.path.name] = _describe(file, exported.trained_body, reference, settings)
        except GateError as error:
            left_out[file.precision] = _left_out(file.precision, error, settings)
            file.path.unlink()
    for bodies in {file.body.parent for file in exported.files if file.body is not None}:
        shutil.rmtree(bodies)
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
        "%s; %s is left out: where it is not needed, take it out of export_onnx.precisions", error, precision
    )
    return str(error)


def _describe(file: Exported, trained_body: Runtime | None, reference: Reference, settings: ExportOnnx) -> Json:
    """Verify ``file`` and return its entry of the manifest.

    Raises:
        GateError: it does not pass; names it and the figure.
    """
    levels = {"deployed": True} | ({"unoptimized": False} if PRECISIONS[file.precision].quantized else {})
    gate, primary = settings.gates.placed(file.precision), reference.task.primary
    figures: Json = {}
    compared: list[str] = []
    for level, optimize in levels.items():
        what = file.path.name if optimize else f"{file.path.name}, without graph optimization"
        before: Json = {}
        words: list[str] = []
        if file.body is not None and trained_body is not None:
            body = open_exported(file.body, optimize=optimize)
            parity = verify_body(body, trained_body, reference.pixels, gate, what=f"{what}, test split")
            before, words = {"body": parity.describe()}, [parity.in_words()]
        found = verify(
            open_exported(file.path, optimize=optimize),
            reference,
            gate,
            what=f"{what}, test split",
            batch_size=max(settings.batch_sizes),
            batch_sizes=settings.batch_sizes,
        )
        figures[level] = before | _figures(found, reference)
        score = f"{reference.task.primary_in_words} {figures[level]['test_split'][primary]:.2%}"
        compared.append(", ".join([*words, found.parity.in_words(), score]))
    logger.info("verified %s: %s", file.path.name, compared[0])
    entry: Json = {"precision": file.precision, "form": file.form, "gates": figures, "compared": compared[0]}
    entry |= {"sha256": sha256(file.path), "bytes": file.path.stat().st_size}
    return entry | {"tensorrt_static_check": check_tensorrt(file)}


def _figures(found: Verified, reference: Reference) -> Json:
    assert found.scores is not None, "a test split has its truth"
    primary = reference.task.primary
    by_batch = {f"batch_{count}": parity._asdict() for count, parity in found.by_batch.items()}
    whole = found.parity._asdict() | {primary: found.scores[primary], "drop": found.drop, "num_images": len(reference)}
    whole |= {reference.task.primary_error: found.standard_error}
    return {**by_batch, "test_split": whole}
