"""What this host can build, found without importing PyTorch or TensorRT."""

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator

import pynvml

from pipeline.files import Json

TENSORRT_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")


def probe_tensorrt() -> Json:
    """Return what decides whether an engine can be built here and which: nothing that changes between two runs.

    Keys: buildable, reason (empty where buildable), gpu, compute_capability, tensorrt (versions or None).
    """
    gpu, capability, reason = _first_gpu()
    version = _tensorrt_version()
    if gpu is not None and version is None:
        reason = "the Python package tensorrt is not installed"
    elif gpu is not None and importlib.util.find_spec("polygraphy") is None:
        reason = "the Python package polygraphy is not installed"
    return {
        "buildable": not reason,
        "reason": reason,
        "gpu": gpu,
        "compute_capability": capability,
        "tensorrt": version,
    }


def count_gpus() -> int:
    """Return the number of NVIDIA GPUs that the driver knows; 0 without a driver."""
    try:
        with _driver():
            return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def _first_gpu() -> tuple[str | None, str | None, str]:
    """Return (name, compute capability, "") of the first GPU, or (None, None, why there is none)."""
    if count_gpus() == 0:
        return None, None, "no NVIDIA GPU on this host, or no driver for it"
    with _driver():
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return str(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", ""


@contextlib.contextmanager
def _driver() -> Iterator[None]:
    """Talk to the NVIDIA driver; raises ``pynvml.NVMLError`` where there is none."""
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _tensorrt_version() -> str | None:
    for name in TENSORRT_DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
