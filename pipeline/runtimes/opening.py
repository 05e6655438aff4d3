"""Runtimes by name."""

from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Options:
    """What opening a runtime may need."""

    num_steps: int | None
    """Sampling steps of the torch student; the other runtimes have theirs built in."""
    num_threads: int
    """CPU threads of an ONNX Runtime session; PyTorch's are set for the whole process."""
    device: torch.device
    """Where PyTorch runs."""


def _open_torch(folder: Path, options: Options) -> Opened:
    network = deployable(load_network(folder)[0], options.num_steps).to(options.device)
    return TorchRuntime(network, device=options.device)


def _open_onnx(folder: Path, options: Options) -> Opened:
    return OnnxRuntime(folder / "model.onnx", num_threads=options.num_threads)


def _open_tensorrt(folder: Path, _: Options) -> Opened:
    status = read_json(folder / "status.json")
    if status["status"] == "skipped":
        return str(status["reason"])
    return TensorrtRuntime(folder / status["engine"], description=status)


RUNTIMES: dict[str, Callable[[Path, Options], Opened]] = {
    "torch": _open_torch,
    "onnx": _open_onnx,
    "tensorrt": _open_tensorrt,
}


def open_runtime(name: str, folder: Path, options: Options) -> Opened:
    """Return the runtime ``name`` over what the stages wrote to ``folder``, or the reason why it was skipped there.

    Raises:
        ValueError: the name is unknown.
        UserError: files are missing or damaged.
    """
    return choose(RUNTIMES, name, kind="runtime")(folder, options)
