"""Runtimes by name."""

from collections.abc import Callable
from pathlib import Path

import torch

from models.choice import choose
from models.deploy import deployable
from pipeline.artifacts import load_network
from pipeline.files import read_json
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.tensorrt import TensorrtRuntime
from pipeline.runtimes.torch import TorchRuntime

Opened = Runtime | str
"""A runtime, or the reason why there is none on this host."""


def _open_torch(folder: Path, *, num_steps: int | None, num_threads: int, device: torch.device) -> Opened:  # noqa: ARG001
    return TorchRuntime(deployable(load_network(folder)[0], num_steps), device=device)


def _open_onnx(folder: Path, *, num_steps: int | None, num_threads: int, device: torch.device) -> Opened:  # noqa: ARG001
    return OnnxRuntime(folder / "model.onnx", num_threads=num_threads)


def _open_tensorrt(folder: Path, *, num_steps: int | None, num_threads: int, device: torch.device) -> Opened:  # noqa: ARG001
    status = read_json(folder / "status.json")
    if status["status"] == "skipped":
        return str(status["reason"])
    return TensorrtRuntime(folder / status["engine"], description=status)


RUNTIMES: dict[str, Callable[..., Opened]] = {
    "torch": _open_torch,
    "onnx": _open_onnx,
    "tensorrt": _open_tensorrt,
}


def open_runtime(name: str, folder: Path, *, num_steps: int | None, num_threads: int, device: torch.device) -> Opened:
    """Return the runtime ``name`` over what the stages wrote to ``folder``, or the reason why it was skipped there.

    Args:
        num_steps: sampling steps of the torch student; the other runtimes have theirs built in.
        num_threads: CPU threads of an ONNX Runtime session; PyTorch's are set for the whole process.
        device: where PyTorch runs.

    Raises:
        ValueError: the name is unknown.
        UserError: files are missing or damaged.
    """
    open_one = choose(RUNTIMES, name, kind="runtime")
    return open_one(folder, num_steps=num_steps, num_threads=num_threads, device=device)
