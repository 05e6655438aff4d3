"""Seeds, threads and determinism."""

import hashlib
import os
import random

import numpy as np
import torch

from pipeline.core.distributed import local_world_size, was_launched
from pipeline.core.errors import UserError
from pipeline.core.processes import num_cores
from pipeline.core.settings import Base


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every name, so that no two uses share a random stream."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, *names: object) -> None:
    """Seed Python, NumPy and PyTorch on every device from ``seed`` and ``names``."""
    value = derive_seed(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)  # noqa: NPY002  (for libraries that draw from the global generator)
    torch.manual_seed(value)


def set_up_torch(stage: str, settings: Base) -> torch.device:
    """Seed everything for ``stage``, choose kernels and threads, and return the device to work on.

    ``settings.num_threads`` None means all cores that this process may use; in a container with a quota PyTorch itself
    would count those of the host, and its threads would wait for each other. OMP_NUM_THREADS is obeyed. Results differ
    in their last bits between thread counts, so the count belongs to what makes a run reproducible.

    Raises:
        UserError: CUDA is asked for and not available.
    """
    deterministic = settings.deterministic
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    elif "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(torch.get_num_threads(), num_cores()))
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = not deterministic
    # not use_deterministic_algorithms, which imports the compiler too: 1.5 s
    torch.set_deterministic_debug_mode("error" if deterministic else "default")
    # each new tensor would be filled with NaN first, by a kernel more
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, on the GPU as on the CPU
    seed_everything(settings.seed, stage)
    return _select_device(settings.device)


def _select_device(name: str) -> torch.device:
    device = torch.device(name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and was_launched():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    elif device.type == "cuda" and device.index is None:
        device = torch.device("cuda", 0)  # PyTorch refuses to make one current that has no index
    if device.type == "cuda" and device.index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        if was_launched():
            raise UserError(
                f"execution.num_processes: got {local_world_size()} on this host, but PyTorch sees {count} CUDA "
                "device(s) here; give at most so many, or set base.device to cpu"
            )
        raise UserError(f"base.device: got {name!r}, but PyTorch sees {count} CUDA device(s) here; use auto or cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device
