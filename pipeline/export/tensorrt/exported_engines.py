"""The engines of an ONNX export: those that are asked for, built where this host can, and what is said of them."""

from pathlib import Path
from typing import NamedTuple

import onnx

from pipeline.core.errors import UserError
from pipeline.core.files import Json, sha256, write_json
from pipeline.core.records import ManifestRecord, read_record
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST, read_gate, read_samples
from pipeline.export.settings import GATES
from pipeline.export.tensorrt.engines import build_engine
from pipeline.export.tensorrt.operator_support import MAJORS, check_support
from pipeline.export.tensorrt.plan import EnginePlan, trtexec_command
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.runtimes.engine_file import sidecar
from pipeline.tasks.gate import PlacedGate

STATUS = "status.json"
REMEDY = "loosen that bound to accept it, or take the precision out of export_tensorrt.precisions"


class Planned(NamedTuple):
    """What is asked for."""

    engines: list[EnginePlan]
    left_out: dict[str, str]
    """From each precision that the ONNX export left out to the reason."""


def plan_engines(onnx_folder: Path, signature: Signature, settings: ExportTensorrt) -> Planned:
    """Return what to build from the ONNX export in ``onnx_folder``, one engine for each precision of ``settings``.

    Raises:
        UserError: a precision was not exported.
    """
    manifest = read_record(onnx_folder / MANIFEST, ManifestRecord)
    files = {entry["precision"]: name for name, entry in manifest["files"].items()}
    left_out = {name: why for name, why in manifest.get("left_out", {}).items() if name in settings.precisions}
    wanted = [precision for precision in settings.precisions if precision not in left_out]
    missing = [precision for precision in wanted if precision not in files]
    if missing:
        found = ", ".join(sorted(files))
        raise UserError(
            f"export_tensorrt.precisions: got {missing[0]}, but {onnx_folder} has {found}; add it to "
            "export_onnx.precisions, or take it out here"
        )
    engines = [EnginePlan(onnx_folder / files[name], name, signature, settings.plain()) for name in wanted]
    return Planned(engines, left_out)


def write_engines(folder: Path, planned: Planned, *, host: Json, cache: Path) -> Json:
    """Build all that is planned into ``folder`` where ``host`` can, and return the status, which says why otherwise.

    Raises:
        GateError: an engine cannot be built here, or is not what was trained.
    """
    engines = planned.engines
    models = {plan.precision: onnx.load(plan.onnx) for plan in engines}
    reason = host["reason"] if engines else f"the ONNX export left out {', '.join(planned.left_out)}"
    builds = engines if host["buildable"] else ()
    status: Json = {
        "status": "built" if builds else "skipped",
        "reason": reason,
        "engines": {},
        "left_out": planned.left_out,
        "on_the_target_device": {plan.precision: trtexec_command(plan) for plan in engines},
        "onnx_sha256": {plan.precision: sha256(plan.onnx) for plan in engines},
        "support": {
            name: {str(major): check_support(model, major).report() for major in MAJORS}
            for name, model in models.items()
        },
    }
    for plan in builds:
        manifest = read_record(plan.onnx.parent / MANIFEST, ManifestRecord)
        samples = read_samples(plan.onnx.parent, manifest)
        gate = PlacedGate(read_gate(manifest, plan.precision, gpu_kernels=True), f"{GATES}.{plan.precision}", REMEDY)
        build_engine(folder, plan, host=host, samples=samples, gate=gate, cache=cache)
        status["engines"][plan.precision] = sidecar(folder / plan.file).name
    write_json(folder / STATUS, status)
    return status
