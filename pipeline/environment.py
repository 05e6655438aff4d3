"""What this host can build, found without importing PyTorch or TensorRT."""

import importlib.metadata
import importlib.util

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


def _first_gpu() -> tuple[str | None, str | None, str]:
    """Return (name, compute capability, "") of the first GPU, or (None, None, why there is none)."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None, None, "no NVIDIA driver on this host"
    try:
        if pynvml.nvmlDeviceGetCount() == 0:
            return None, None, "no NVIDIA GPU on this host"
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        return str(pynvml.nvmlDeviceGetName(handle)), f"{major}.{minor}", ""
    except pynvml.NVMLError as error:
        return None, None, f"the NVIDIA driver does not answer ({error})"
    finally:
        pynvml.nvmlShutdown()


def _tensorrt_version() -> str | None:
    for name in TENSORRT_DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None
