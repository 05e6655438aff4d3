"""An engine from a downloaded package alone: no training code, no data and no PyTorch."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pipeline.core.errors import UserError
from pipeline.core.files import Json, read_json, write_bytes
from pipeline.export.tensorrt.engines import build_engine
from pipeline.export.tensorrt.plan import EnginePlan
from pipeline.package.reader import MANIFEST, SAMPLES, check_files, choose_file, read_gate, read_package, read_samples
from pipeline.params.deployment import ExportTensorrt
from pipeline.preflight.environment import probe_tensorrt

SETTINGS = "engine.json"
NEEDED = (
    "needed are an NVIDIA GPU with its driver and, in this Python, "
    "pip install 'tensorrt>=10.3' 'polygraphy>=0.49.26' (on JetPack: apt-get install python3-libnvinfer)"
)


def build_from_package(
    package_folder: Path, *, precision: str, out: Path | None, overrides: Mapping[str, Any], cache: Path
) -> Json:
    """Build the engine of ``precision`` from a package alone, prove it here, and return what its sidecar says.

    It is written to ``out``; without one to the package's folder engines, and to its Triton repository if it has one.

    Raises:
        UserError: the package is damaged or has no such file, a setting is wrong, or this host cannot build engines.
        GateError: the engine cannot be built here, or is not what was trained.
    """
    package = read_package(package_folder)
    path = choose_file(package, precision)
    check_files(package, (path.name, MANIFEST, SAMPLES, SETTINGS))
    settings = read_settings(package.folder / SETTINGS, overrides)
    host = probe_tensorrt()
    if not host["buildable"]:
        raise UserError(f"no engine can be built here: {host['reason']}; {NEEDED}")
    plan = EnginePlan(path, precision, package.image_size, **settings)
    engines, repository = package.folder / "engines", package.folder / "triton" / f"{package.name}-tensorrt"
    folder = engines if out is None else out
    for_triton = repository.is_dir() and folder.resolve() == engines.resolve()
    if for_triton:
        _require_batches(repository / "config.pbtxt", plan)
    about = build_engine(
        folder, plan, host=host, samples=read_samples(package.folder),
        gate=read_gate(package.manifest, precision, gpu_kernels=True), cache=cache,
    )  # fmt: skip
    if for_triton:
        write_bytes(repository / "1" / "model.plan", (folder / plan.file).read_bytes())
    return about


def read_settings(path: Path, overrides: Mapping[str, Any]) -> Json:
    """Return the section export_tensorrt in the JSON file ``path`` with ``overrides``, without the precisions.

    Raises:
        UserError: a setting is missing, unknown or not allowed.
    """
    try:
        settings = ExportTensorrt.model_validate(read_json(path) | dict(overrides)).model_dump()
    except ValidationError as error:
        faults = (
            f"{'.'.join(map(str, e['loc']))}: got {e['input']!r}; {e['msg']}" if e["loc"] else e["msg"]
            for e in error.errors()
        )
        raise UserError("\n".join(f"{path} with the options given: {fault}" for fault in faults)) from error
    del settings["precisions"]
    return settings


def engine_table(about: Json) -> str:
    """Return what the sidecar ``about`` says of the engine, for a terminal."""
    rows = [
        (about["plan"], f"{about['precision']}, TensorRT {about['tensorrt']}, {about['gpu']}"),
        ("top-1 accuracy", f"{about['accuracy']:.2%} of {about['num_images']} samples"),
        ("lost against training", f"{about['accuracy_drop']:.2%}"),
        ("max difference of a logit", f"{about['parity']['max_abs']:.1e}"),
        ("same label", f"{about['parity']['top1_agreement']:.2%}"),
        *((f"batch {size}, median ms", f"{ms['p50']:.3f}") for size, ms in _by_size(about)),
    ]
    return "\n".join(f"{name:26}{value}" for name, value in rows)


def _by_size(about: Json) -> list[tuple[str, Json]]:
    return sorted(about["latency_ms"].items(), key=lambda item: int(item[0]))


def _require_batches(config: Path, plan: EnginePlan) -> None:
    """Raise UserError where Triton's ``config`` promises batches, from 1 on, that the engine will not take."""
    text = config.read_text(encoding="utf-8") if config.is_file() else ""
    promised = re.search(r"^\s*max_batch_size\s*:\s*(\d+)", text, re.MULTILINE)
    if promised is None:
        return
    smallest, largest, most = plan.batches["min"], plan.batches["max"], int(promised[1])
    if smallest > 1:
        raise UserError(f"min_batch: got {smallest}, but {config} promises single images; take 1, or give --out")
    if largest < most:
        raise UserError(f"max_batch: got {largest}, but {config} promises {most}; take {most}, or give --out")
