"""The ONNX files of a student: one for each precision."""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch

from models.core.calling import as_tuple
from models.deploy import DeployableNetwork
from pipeline.core.arrays import Pixels
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json, sha256
from pipeline.core.records import ManifestRecord, read_record
from pipeline.core.signature import Signature
from pipeline.export.calibration import Calibration
from pipeline.export.folder import MANIFEST
from pipeline.export.onnx.exporter import export_image_network, export_network, join_tail
from pipeline.export.onnx.graph_form import smallest_form
from pipeline.export.precisions import FP32, PRECISIONS, PrecisionEntry
from pipeline.export.settings import ExportOnnx
from pipeline.export.tensorrt.operator_support import MAJORS, check_support
from pipeline.networks.spec import WEIGHTS
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.torch import TorchRuntime
from pipeline.tasks.training import TaskTraining

BODIES = "bodies"
"""Folder of the files without their tails."""


class Source(NamedTuple):
    """What all files of a student are made from."""

    network: DeployableNetwork
    signature: Signature
    task: TaskTraining
    calibration: Pixels
    """Images (N, 3, H, W) on which rewritings are verified and the ranges of INT8 activations are found."""
    metadata: Mapping[str, str]
    settings: ExportOnnx


class Exported(NamedTuple):
    """One file."""

    path: Path
    precision: str
    form: str
    """The form of the network from which it is made; see ``Form.name``."""
    body: Path | None = None
    """The same without its tail; None: it has none."""


class Exports(NamedTuple):
    """What could be written, and what could not."""

    files: list[Exported]
    """In the table's order, fp32 first."""
    failed: dict[str, GateError]
    """From each precision that cannot be had to the reason."""
    trained_body: Runtime | None = None
    """What the trained network computes up to its tail, by PyTorch on the CPU; None: the files have no tail."""


class ExportedFolder(NamedTuple):
    """The files of an export that has ended: one number of sampling steps, verified."""

    num_steps: int | None
    files: Mapping[str, Exported]
    """By precision."""

    def take(self, num_steps: int | None, precisions: Sequence[str]) -> Exports | None:
        """Return the files of ``precisions``; None where one is not there, or they take other steps."""
        if num_steps != self.num_steps or not set(precisions) <= set(self.files):
            return None
        return Exports([self.files[name] for name in PRECISIONS if name in precisions], {})


def read_exported(folder: Path, student: Path) -> ExportedFolder:
    """Return what the stage that exports wrote into ``folder`` of the student in the folder ``student``.

    Raises:
        UserError: its manifest is missing or damaged, or says that it is of another student.
    """
    manifest = read_record(folder / MANIFEST, ManifestRecord)
    if manifest.get("student_sha256") != sha256(student / WEIGHTS):
        raise UserError(f"{folder}: exported from another student than that in {student}; run export_onnx again")
    entries = {entry["precision"]: (name, entry.get("form", "")) for name, entry in manifest["files"].items()}
    found = {precision: Exported(folder / name, precision, form) for precision, (name, form) in entries.items()}
    return ExportedFolder(manifest["num_steps"], found)


def export_precisions(source: Source, folder: Path, precisions: Sequence[str], *, tail: Path | None = None) -> Exports:
    """Write the file of each of ``precisions``, and always that of fp32, into ``folder``.

    fp32 is written from the smallest form, and what is not quantized is derived from that file; what is quantized is
    derived from the smallest form whose last convolution is still one, so that it can be INT8. Where a task's networks
    have a tail it stays in float32 in every file, whose body is kept beside it, in ``BODIES``, to be verified. A
    precision that cannot be had keeps no other from being written.

    Args:
        tail: what ``export_tail`` wrote of the same student, with any number of steps; None: it is written here.

    Raises:
        GateError: a rewriting is wrong, or the float32 file is no valid ONNX of the opset that was asked for.
    """
    entries = [PRECISIONS[name] for name in PRECISIONS if name in precisions and name != FP32]
    found = Exports([], {}, _trained_body(source))
    with tempfile.TemporaryDirectory() as work:
        tail = tail or export_tail(source, Path(work, "tail.onnx"))
        smallest = _write_body(source, Path(work, "smallest.onnx"), collapse=source.settings.collapse)

        @functools.cache
        def wide() -> _Float32:
            is_wide = smallest.form != "collapsed"
            return smallest if is_wide else _write_body(source, Path(work, "wide.onnx"), collapse=False)

        calibration = Calibration(source.calibration, source.signature.input.dtype, source.settings.calibration.method)
        for entry in (PRECISIONS[FP32], *entries):
            try:
                float32 = wide() if entry.quantized else smallest
                found.files.append(_derive(entry, float32, tail, folder, calibration))
            except GateError as error:
                found.failed[entry.name] = error
    return found


def export_tail(source: Source, path: Path) -> Path | None:
    """Write the tail of the network of ``source`` to ``path`` and return it; None: its task's networks have none.

    It is that of the student with any number of steps, and without its flows: what comes before a tail takes steps.
    """
    parts = source.task.export_parts(source.network.eval())
    if parts.tail is None:
        return None
    with torch.inference_mode():
        tensors = as_tuple(parts.body(torch.from_numpy(source.calibration[:2]).float() / 255))
    between = dict(zip(parts.body_outputs, tensors, strict=True))
    outputs, opset = source.signature.output_names, source.settings.opset
    export_network(parts.tail, path, between, outputs, opset=opset, metadata={})
    return path


def export_plain(source: Source, path: Path, *, tail: Path | None) -> None:
    """Write the student of ``source`` without its flows, in float32 and with ``tail`` behind it, to ``path``."""
    parts, opset = source.task.export_parts(source.network.without_flows()), source.settings.opset
    export_image_network(parts.body, path, source.signature.input, parts.body_outputs, opset=opset, metadata={})
    if tail is not None:
        join_tail(path, tail, path)


class _Float32(NamedTuple):
    """The float32 file, without a tail, from which others are made."""

    body: Path
    form: str


def _write_body(source: Source, path: Path, *, collapse: bool) -> _Float32:
    """Write the smallest form of the network in float32, up to its tail, to ``path``."""
    form = smallest_form(source.network, torch.from_numpy(source.calibration), source.task, collapse=collapse)
    names, opset = form.parts.body_outputs, source.settings.opset
    export_image_network(form.parts.body, path, source.signature.input, names, opset=opset, metadata=source.metadata)
    return _Float32(path, form.name)


def _derive(
    entry: PrecisionEntry, float32: _Float32, tail: Path | None, folder: Path, calibration: Calibration
) -> Exported:
    """Write the file of ``entry`` into ``folder``: the body in its precision, and the tail in float32 behind it."""
    path = folder / entry.file_name
    if tail is None:
        entry.load()(float32.body, path, calibration)
        return Exported(path, entry.name, float32.form)
    body = folder / BODIES / entry.file_name
    body.parent.mkdir(exist_ok=True)
    entry.load()(float32.body, body, calibration)
    join_tail(body, tail, path)
    return Exported(path, entry.name, float32.form, body)


def _trained_body(source: Source) -> Runtime | None:
    parts = source.task.export_parts(source.network.eval())
    if parts.tail is None:
        return None
    return TorchRuntime(parts.body, output_names=parts.body_outputs, device=torch.device("cpu"))


def open_exported(path: Path, **options: Any) -> OnnxRuntime:
    """Return a session over the file ``path``, with ``options`` of ``OnnxRuntime``.

    Raises:
        GateError: ONNX Runtime does not take what was just written.
    """
    try:
        return OnnxRuntime(path, **options)
    except UserError as error:
        raise GateError(str(error).replace(str(path), path.name)) from error


def check_tensorrt(exported: Exported) -> Json:
    """Return what the static check says of each major version of TensorRT: accepted, or the reasons why not.

    Raises:
        GateError: the file is made for TensorRT alone, and no version accepts it.
    """
    model = onnx.load(exported.path)
    found = {str(major): check_support(model, major) for major in MAJORS}
    if PRECISIONS[exported.precision].only_tensorrt and not any(support.accepted for support in found.values()):
        reasons = "; ".join(reason for support in found.values() for reason in support.reasons[:2])
        raise GateError(f"{exported.path.name}: TensorRT would refuse it (static check): {reasons}")
    return {major: support.report() for major, support in found.items()}
