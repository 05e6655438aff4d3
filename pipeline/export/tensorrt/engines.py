"""Engines are built where they run, verified there against the trained network, timed, and only then written."""

import hashlib
import re
from pathlib import Path

import onnx

from pipeline.core.errors import GateError
from pipeline.core.files import Json, sha256, write_bytes, write_json
from pipeline.export.precisions import PRECISIONS
from pipeline.export.tensorrt.builder import build_plan
from pipeline.export.tensorrt.operator_support import MAJORS, check_precision, check_support
from pipeline.export.tensorrt.plan import EnginePlan
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.engine_file import describe_signature, sidecar
from pipeline.runtimes.latency import benchmark
from pipeline.runtimes.tensorrt import TensorrtRuntime
from pipeline.tasks.gate import PlacedGate
from pipeline.tasks.verification import Reference, verify

WARMUP, ITERATIONS = 10, 50


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
