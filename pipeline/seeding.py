"""Seeds, threads and determinism."""

import hashlib
import os
import random

import numpy as np
import torch


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every name, so that no two uses share a random stream."""
    digest = hashlib.sha256("/".join(map(str, (seed, *names))).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_everything(seed: int, *names: object) -> None:
    """Seed Python, NumPy and PyTorch on every device from ``seed`` and ``names``."""
    value = derive_seed(seed, *names)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def configure_torch(*, deterministic: bool, num_threads: int | None) -> None:
    """Fix the CPU thread count (None: all cores) and choose deterministic kernels.

    Results differ in their last bits between thread counts, so the count belongs to what makes a run reproducible.
    """
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(deterministic)


def select_device(name: str) -> torch.device:
    """Return the device called ``name``: ``auto`` (CUDA where there is one, else the CPU), ``cpu``, ``cuda``, ``cuda:1``.

    Raises:
        ValueError: CUDA is asked for and not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"base.device: got {name!r}, but PyTorch sees no CUDA device here; use auto or cpu")
    return torch.device(name)
