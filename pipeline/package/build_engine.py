"""An engine from a downloaded package alone: no training code, no data and no PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError, user_error
from pipeline.core.files import Json
from pipeline.export.tensorrt.engines import build_engine
from pipeline.export.tensorrt.plan import EnginePlan
from pipeline.package.engine_register import list_engine, register_path, require_register
from pipeline.package.reader import Package
from pipeline.package.schema import ENGINE_SETTINGS, read_described, read_settings
from pipeline.package.verify import ENGINES
from pipeline.tasks.base import Task

NEEDED = (
    "needed are an NVIDIA GPU with its driver and, in this Python, "
    "pip install 'tensorrt>=10.3' 'polygraphy>=0.49.26' (on JetPack: apt-get install python3-libnvinfer)"
)


def build_from_package(
    package: Package,
    precision: str,
    *,
    host: Json,
    out: Path | None,
    overrides: Mapping[str, Any],
    cache: Path | None,
) -> Json:
    """Build the engine of ``precision`` from a package alone, verify it here, and return what its sidecar says.

    It is written to ``out``; without one to the package's folder engines. The list of this host's engines has it then.

    Args:
        host: what ``pipeline.core.host.probe_tensorrt`` finds here.
        overrides: settings that replace those of the package, by their names.
        cache: folder of the timing cache; None: beside the list of engines, since what is built in the folder of a
            package must leave nothing there that ``verify`` refuses.

    Raises:
        UserError: the package is damaged or has no such file, a setting is wrong, this host cannot build engines, or
            its list of engines cannot be written.
        GateError: the engine cannot be built here, or is not what was trained.
    """
    plan = plan_engine(package, precision, overrides)
    samples = package.samples
    if not host["buildable"]:
        raise UserError(f"no engine can be built here: {host['reason']}; {NEEDED}")
    require_register()
    folder = package.folder / ENGINES if out is None else out
    gate = package.gate(precision, gpu_kernels=True)
    timings = register_path().parent if cache is None else cache
    about = build_engine(folder, plan, host=host, samples=samples, gate=gate, cache=timings)
    list_engine(folder / plan.file, package=package.name)
    return about


def plan_engine(package: Package, precision: str, overrides: Mapping[str, Any]) -> EnginePlan:
    """Return what to build: the package's settings with ``overrides``.

    Raises:
        UserError: the package has no file of ``precision``, it or the settings are damaged, or a setting is wrong.
    """
    (onnx,) = package.verified([package.file(precision).name])
    path = package.folder / ENGINE_SETTINGS
    content = read_described(package.folder, ENGINE_SETTINGS, package.sums)
    with user_error(f"{path} with the options given"):
        settings = read_settings(content, overrides)
    return EnginePlan(onnx, precision, package.signature, settings)


def engine_table(about: Json, task: Task) -> str:
    """Return what the sidecar ``about`` says of the engine, for a terminal."""
    rows = [
        (about["plan"], f"{about['precision']}, TensorRT {about['tensorrt']}, {about['gpu']}"),
        *_score_rows(about, task),
        ("max difference", f"{about['parity']['max_abs']:.1e}"),
        ("same answer", f"{about['parity']['agreement']:.2%}"),
        *((f"batch {size}, median ms", f"{ms['p50']:.3f}") for size, ms in _by_size(about)),
    ]
    return "\n".join(f"{name:26}{value}" for name, value in rows)


def _score_rows(about: Json, task: Task) -> list[tuple[str, str]]:
    """Return what the sidecar says of the primary score, where so few images have one."""
    if task.primary not in about:
        return []
    return [
        (task.primary_title, f"{about[task.primary]:.2%} of {about['num_images']} samples"),
        ("lost against training", f"{about[f'{task.primary}_drop']:.2%}"),
    ]


def _by_size(about: Json) -> list[tuple[str, Json]]:
    return sorted(about["latency_ms"].items(), key=lambda item: int(item[0]))
