"""Runtimes by name, over what the stages wrote."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from models.choice import choose
from models.deploy import deployable
from pipeline.core.files import read_json
from pipeline.networks.saved import load_network
from pipeline.package.reader import MANIFEST, fp32_first
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.tensorrt import open_engine
from pipeline.runtimes.torch import TorchRuntime

Opened = dict[str, Callable[[], Runtime]] | str
"""From each precision, fp32 first, to what opens its runtime; or the reason why there is none on this host."""


@dataclass(frozen=True)
class Options:
    """What opening a runtime may need."""

    num_steps: int | None
    """Sampling steps of the torch student; the other runtimes have theirs built in."""
    provider: str
    """Of ONNX Runtime."""
    num_threads: int
    """CPU threads of an ONNX Runtime session; PyTorch's are set for the whole process."""
    device: torch.device
    """Where PyTorch runs."""


def _open_torch(folder: Path, options: Options) -> Opened:
    network = deployable(load_network(folder)[0], options.num_steps).to(options.device)
    return {"fp32": lambda: TorchRuntime(network, device=options.device)}


def _open_onnx(folder: Path, options: Options) -> Opened:
    def opener(file: str) -> Callable[[], Runtime]:
        return lambda: OnnxRuntime(folder / file, provider=options.provider, num_threads=options.num_threads)

    files = read_json(folder / MANIFEST)["files"]
    return fp32_first({entry["precision"]: opener(file) for file, entry in files.items()})


def _open_tensorrt(folder: Path, _: Options) -> Opened:
    status = read_json(folder / "status.json")
    if status["status"] == "skipped":
        return str(status["reason"])

    def opener(sidecar: str) -> Callable[[], Runtime]:
        return lambda: open_engine(folder / read_json(folder / sidecar)["plan"])

    return fp32_first({precision: opener(sidecar) for precision, sidecar in status["engines"].items()})


RUNTIMES: dict[str, Callable[[Path, Options], Opened]] = {
    "torch": _open_torch,
    "onnx": _open_onnx,
    "tensorrt": _open_tensorrt,
}


def open_runtimes(name: str, folder: Path, options: Options) -> Opened:
    """Return how to open the runtime ``name`` over what the stages wrote to ``folder``, or why it was skipped there.

    Raises:
        ValueError: the name is unknown.
        UserError: files are missing or damaged.
    """
    return choose(RUNTIMES, name, kind="runtime")(folder, options)
