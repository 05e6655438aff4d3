"""What this host can build, found without importing PyTorch or TensorRT."""

import contextlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.core.errors import require_extra
from pipeline.core.files import Json

TENSORRT_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
OLDEST_TENSORRT = (10, 3)
BF16 = {"avx512_bf16": "AVX-512", "amx_bf16": "AMX", "bf16": "NEON"}
"""Flags of CPUs that compute in bf16, and what the instructions are called."""


def probe_tensorrt() -> Json:
    """Return what decides whether an engine can be built here and which: nothing that changes between two runs.

    Keys: buildable, reason (empty where buildable), gpu, compute_capability, tensorrt, polygraphy (versions or None),
    tensorrt_major (a number or None).
    """
    gpu, capability, reason = _first_gpu()
    version, polygraphy = _tensorrt_version(), version_of("polygraphy")
    if gpu is not None:
        reason = _missing_package(version)
    return {
        "buildable": not reason,
        "reason": reason,
        "gpu": gpu,
        "compute_capability": capability,
        "tensorrt": version,
        "tensorrt_major": None if version is None else _numbers(version)[0],
        "polygraphy": polygraphy,
    }


def cpu_facts(root: Path = Path("/")) -> dict[str, str]:
    """Return what Linux says of the CPU, by the names of /proc/cpuinfo; ``root`` is where the system's files lie."""
    with contextlib.suppress(OSError):
        fields = (line.partition(":") for line in (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines())
        return {name.strip(): value.strip() for name, _, value in fields}
    return {}


def cpu_flags(facts: Mapping[str, str]) -> set[str]:
    """Return the flags among ``facts`` of `cpu_facts`, which ARM calls features."""
    return set((facts.get("flags") or facts.get("Features") or "").split())


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that the driver knows; 0 without a driver.

    Raises:
        UserError: the package is not installed.
    """
    pynvml = _pynvml()
    try:
        with _driver():
            return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


class Gpu(NamedTuple):
    """An NVIDIA GPU as its driver describes it."""

    name: str
    compute_capability: str
    memory: int | None
    """In bytes; None where it is the host's own, as on a Jetson, whose driver counts none."""


def list_gpus() -> tuple[list[Gpu], str | None]:
    """Return the GPUs that the NVIDIA driver knows, and the newest CUDA that it serves, if it says; none without one.

    Raises:
        UserError: the package is not installed.
    """
    pynvml = _pynvml()
    try:
        with _driver():
            handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
            return [_gpu(pynvml, handle) for handle in handles], _cuda_version(pynvml)
    except pynvml.NVMLError:
        return [], None


def _gpu(pynvml: Any, handle: Any) -> Gpu:
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = None
    with contextlib.suppress(pynvml.NVMLError):
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", memory)


def _cuda_version(pynvml: Any) -> str | None:
    try:
        version = int(pynvml.nvmlSystemGetCudaDriverVersion())
    except pynvml.NVMLError:
        return None
    return f"{version // 1000}.{version % 1000 // 10}"


def _pynvml() -> Any:
    with require_extra("pip install nvidia-ml-py"):
        import pynvml

    return pynvml


def _missing_package(tensorrt: str | None) -> str:
    """Return which package keeps a host with a GPU from building; empty where none does."""
    if tensorrt is None:
        return "the Python package tensorrt is not installed"
    if _numbers(tensorrt) < OLDEST_TENSORRT:
        oldest = ".".join(map(str, OLDEST_TENSORRT))
        return f"the Python package tensorrt is {tensorrt}, needed is {oldest} or later"
    if importlib.util.find_spec("polygraphy") is None:
        return "the Python package polygraphy is not installed"
    return ""


def _first_gpu() -> tuple[str | None, str | None, str]:
    """Return (name, compute capability, "") of the first GPU, or (None, None, why there is none)."""
    gpus, _ = list_gpus()
    if not gpus:
        return None, None, "no NVIDIA GPU on this host, or no driver for it"
    return gpus[0].name, gpus[0].compute_capability, ""


@contextlib.contextmanager
def _driver() -> Iterator[Any]:
    """Talk to the NVIDIA driver by the module that is yielded; raises ``pynvml.NVMLError`` where there is none."""
    pynvml = _pynvml()
    pynvml.nvmlInit()
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _tensorrt_version() -> str | None:
    """Return the version of the module tensorrt: from package metadata, else from the module's own text.

    JetPack installs the module as a system package, which may come without metadata.
    """
    versions = (version_of(name) for name in TENSORRT_DISTRIBUTIONS)
    return next((version for version in versions if version is not None), None) or _version_in_source("tensorrt")


def version_of(distribution: str) -> str | None:
    """Return the version of an installed ``distribution``; None where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version_in_source(module: str) -> str | None:
    """Return what the module's file assigns to ``__version__``, without running it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    text = Path(spec.origin).read_text(encoding="utf-8")
    found = re.search(r"^__version__\s*=\s*[\"']([^\"']+)[\"']", text, re.MULTILINE)
    return None if found is None else found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
