"""Engines are built where they run, proved there against the trained network, timed, and only then written."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json, read_json, sha256, write_bytes, write_json
from pipeline.export.tensorrt.builder import build_plan
from pipeline.export.tensorrt.operator_support import MAJORS, check_precision, check_support
from pipeline.export.tensorrt.plan import INPUT, OUTPUT, EnginePlan, sidecar, trtexec_command
from pipeline.package.reader import MANIFEST, Samples, read_gate, read_samples
from pipeline.runtimes.base import Runtime, predict
from pipeline.runtimes.latency import benchmark
from pipeline.runtimes.tensorrt import TensorrtRuntime
from pipeline.tasks.classification.parity import (
    Gate,
    compare,
    require_accuracy,
    require_difference,
    require_parity,
    require_same_in_batches,
)

STATUS = "status.json"
WARMUP, ITERATIONS = 10, 50
INPUT_DTYPES = {onnx.TensorProto.FLOAT: "float32", onnx.TensorProto.UINT8: "uint8"}


def plans(onnx_folder: Path, precisions: Sequence[str], settings: Mapping[str, Any]) -> list[EnginePlan]:
    """Return what to build from the ONNX export in ``onnx_folder``, one engine for each of ``precisions``.

    Raises:
        UserError: a precision was not exported.
    """
    manifest = read_json(onnx_folder / MANIFEST)
    files = {entry["precision"]: name for name, entry in manifest["files"].items()}
    missing = [precision for precision in precisions if precision not in files]
    if missing:
        found = ", ".join(sorted(files))
        raise UserError(
            f"export_tensorrt.precisions: got {missing[0]}, but {onnx_folder} has {found}; add it to "
            "export_onnx.precisions, or take it out here"
        )
    height, width = manifest["image_size"]
    return [EnginePlan(onnx_folder / files[name], name, (height, width), **settings) for name in precisions]


def write_engines(folder: Path, planned: Sequence[EnginePlan], *, host: Json, cache: Path) -> Json:
    """Build all that is planned into ``folder`` where ``host`` can, and return the status, which says why otherwise.

    Raises:
        GateError: an engine cannot be built here, or is not what was trained.
    """
    models = {plan.precision: onnx.load(plan.onnx) for plan in planned}
    status: Json = {
        "status": "built" if host["buildable"] else "skipped",
        "reason": host["reason"],
        "engines": {},
        "on_the_target_device": {plan.precision: trtexec_command(plan) for plan in planned},
        "onnx_sha256": {plan.precision: sha256(plan.onnx) for plan in planned},
        "support": {
            name: {str(major): check_support(model, major).report() for major in MAJORS}
            for name, model in models.items()
        },
    }
    for plan in planned if host["buildable"] else ():
        samples = read_samples(plan.onnx.parent)
        gate = read_gate(read_json(plan.onnx.parent / MANIFEST), plan.precision, gpu_kernels=True)
        build_engine(folder, plan, host=host, samples=samples, gate=gate, cache=cache)
        status["engines"][plan.precision] = sidecar(folder / plan.file).name
    write_json(folder / STATUS, status)
    return status


def build_engine(folder: Path, plan: EnginePlan, *, host: Json, samples: Samples, gate: Gate, cache: Path) -> Json:
    """Build the engine, judge it on this device, then write it and its sidecar; return what the sidecar says.

    Raises:
        GateError: the file's types are not those of its precision, TensorRT cannot build it, or the engine is not good
            enough; nothing is written then.
    """
    model = onnx.load(plan.onnx)
    wrong = check_precision(model, plan.precision)
    if wrong:
        raise GateError(f"{plan.onnx}: not a file of precision {plan.precision}: {'; '.join(wrong[:3])}")
    major = host["tensorrt_major"]
    hints = check_support(model, major).reasons if major in MAJORS else []
    timings = cache / "tensorrt" / f"{_word(host['gpu'])}-{host['tensorrt']}.timing" if plan.timing_cache else None
    data = build_plan(plan, cache=timings, hints=hints)
    about = {
        **{key: host[key] for key in ("gpu", "compute_capability", "tensorrt")},
        "plan": plan.file,
        "plan_sha256": hashlib.sha256(data).hexdigest(),
        "onnx": plan.onnx.name,
        "onnx_sha256": sha256(plan.onnx),
        "precision": plan.precision,
        "input": {"name": INPUT, "dtype": _input_dtype(model), "shape": ["batch", 3, *plan.image_size]},
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["batch", samples.logits.shape[1]]},
        "batch": plan.batches,
        "options": plan.options,
    }
    about |= evaluate_runtimes(TensorrtRuntime(data, description=about), samples, gate, plan)
    write_bytes(folder / plan.file, data)
    write_json(sidecar(folder / plan.file), about)
    return about


def evaluate_runtimes(runtime: Runtime, samples: Samples, gate: Gate, plan: EnginePlan) -> Json:
    """Return accuracy, parity with the trained network and latency of ``runtime``, each found on this device.

    Raises:
        GateError: parity or accuracy are not good enough; names the figure.
    """
    gate = gate.for_sample_size(len(samples.images))
    sizes = sorted({1, *plan.batches.values()})
    logits = predict(runtime, samples.images, plan.max_batch)
    for size in sizes:
        few = predict(runtime, samples.images[:size], size)
        require_difference(compare(few, samples.logits[:size]), f"{plan.file}, batch of {len(few)}", gate)
        require_same_in_batches(few, logits, f"{plan.file}, batch of {len(few)}")
    parity = compare(logits, samples.logits)
    require_parity(parity, f"{plan.file}, {len(logits)} samples", gate)
    drop = require_accuracy(logits, samples.logits, samples.labels, plan.file, gate)
    timing = benchmark(
        runtime, image_size=plan.image_size, batch_sizes=sizes, warmup=WARMUP, iterations=ITERATIONS
    )  # fmt: skip
    accuracy = float((logits.argmax(axis=1) == samples.labels).mean())
    figures = {"accuracy": accuracy, "accuracy_drop": drop, "num_images": len(logits), "parity": parity._asdict()}
    return figures | timing


def _input_dtype(model: onnx.ModelProto) -> str:
    return INPUT_DTYPES[model.graph.input[0].type.tensor_type.elem_type]


def _word(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
