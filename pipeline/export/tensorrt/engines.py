"""Engines are built where they run, verified there against the trained network, timed, and only then written."""

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import onnx

from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json, sha256, write_bytes, write_json
from pipeline.core.records import ManifestRecord, read_record
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST, read_gate, read_samples
from pipeline.export.precisions import PRECISIONS
from pipeline.export.settings import GATES
from pipeline.export.tensorrt.builder import build_plan
from pipeline.export.tensorrt.operator_support import MAJORS, check_precision, check_support
from pipeline.export.tensorrt.plan import EnginePlan, trtexec_command
from pipeline.export.tensorrt.settings import ExportTensorrt
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.engine_file import describe_signature, sidecar
from pipeline.runtimes.latency import benchmark
from pipeline.runtimes.tensorrt import TensorrtRuntime
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.verification import Reference, verify

STATUS = "status.json"
WARMUP, ITERATIONS = 10, 50
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
    engines = [EnginePlan(onnx_folder / files[name], name, signature, settings) for name in wanted]
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


def build_engine(
    folder: Path, plan: EnginePlan, *, host: Json, samples: Reference, gate: PlacedGate, cache: Path
) -> Json:
    """Build the engine, verify it on this device, then write it and its sidecar; return what the sidecar says.

    Raises:
        GateError: the file's types are not those of its precision, TensorRT cannot build it, or the engine is not good
            enough; nothing is written then.
    """
    model = onnx.load(plan.onnx)
    wrong = check_precision(model, PRECISIONS[plan.precision])
    if wrong:
        raise GateError(f"{plan.onnx}: not a file of precision {plan.precision}: {'; '.join(wrong[:3])}")
    major = host["tensorrt_major"]
    hints = check_support(model, major).reasons if major in MAJORS else []
    keeps_timings = plan.settings.timing_cache
    timings = cache / "tensorrt" / f"{_word(host['gpu'])}-{host['tensorrt']}.timing" if keeps_timings else None
    data = build_plan(plan, cache=timings, hints=hints)
    about = {
        **{key: host[key] for key in ("gpu", "compute_capability", "tensorrt")},
        "plan": plan.file,
        "plan_sha256": hashlib.sha256(data).hexdigest(),
        "onnx": plan.onnx.name,
        "onnx_sha256": sha256(plan.onnx),
        "precision": plan.precision,
        **describe_signature(plan.signature),
        "batch": plan.batches,
        "options": plan.options,
    }
    about |= measure_engine(TensorrtRuntime(data, description=about), samples, gate, plan)
    write_bytes(folder / plan.file, data)
    write_json(sidecar(folder / plan.file), about)
    return about


def measure_engine(runtime: Runtime, samples: Reference, gate: PlacedGate, plan: EnginePlan) -> Json:
    """Return parity with the trained network and latency of ``runtime``, found on this device, and scores if there are.

    Raises:
        GateError: parity or the primary score are not good enough; names the figure.
    """
    sizes = sorted({1, *plan.batches.values()})
    found = verify(
        runtime,
        samples,
        gate,
        what=plan.file,
        batch_size=plan.batches["max"],
        batch_sizes=sizes,
    )
    _, height, width = plan.signature.input.shape
    timing = benchmark(runtime, image_size=(height, width), batch_sizes=sizes, warmup=WARMUP, iterations=ITERATIONS)
    primary = samples.task.primary
    scored = {} if found.scores is None else {primary: found.scores[primary], f"{primary}_drop": found.drop}
    return {**scored, "num_images": len(samples), "parity": found.parity._asdict(), **timing}


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
