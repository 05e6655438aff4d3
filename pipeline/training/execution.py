"""How a training runs: device, precision, compiling, and which of several processes writes."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from pipeline.core.distributed import is_main, world_size
from pipeline.core.files import Json, replaced_folder
from pipeline.core.host import BF16, cpu_facts, cpu_flags
from pipeline.training.compilation import wants_compiling
from pipeline.training.settings import ExecutionSettings


class Execution(NamedTuple):
    """How a training runs."""

    device: torch.device
    precision: str
    """fp32, bf16 or fp16; see ``pipeline.training.step.TrainingStep``."""
    compiled: bool
    """Whether networks are compiled."""
    compile_fallback: bool
    """Whether training goes on where that fails."""

    def describe(self) -> Json:
        """Return what decides about the last bits of the weights: device, threads, processes, precision, compiling."""
        device = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "device": device,
            "num_threads": torch.get_num_threads(),
            "num_processes": world_size(),
            "precision": self.precision,
            "compiled": self.compiled,
        }


DEPTHWISE_SHARE = 0.15
"""Of a network's convolutions, from which on most CPUs train it faster in fp32 (``python -m benchmarks.precision``)."""


def choose_execution(
    device: torch.device, settings: ExecutionSettings, *, precision: str, network: nn.Module | None
) -> Execution:
    """Return how ``network`` trains on ``device``; ``precision`` and ``settings.compile`` may be ``auto``.

    Args:
        network: what trains; None: nothing does.
    """
    compiled = wants_compiling(settings.compile, device)
    return Execution(device, choose_precision(precision, device, network), compiled, settings.compile_fallback)


def choose_precision(precision: str, device: torch.device, network: nn.Module | None) -> str:
    """Return ``precision``; for ``auto`` the one in which ``network`` is likely to train fastest on ``device``.

    That is bf16 on GPUs from compute capability 8.0 on and on CPUs with instructions for it; else fp16 on a GPU and
    fp32 on a CPU. CPUs take fp32 for networks of depthwise convolutions too, whose gradients are slow in bf16. Nothing
    is timed: the same inputs have to give the same weights.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    computes_bf16 = bool(BF16.keys() & cpu_flags(cpu_facts()))
    return "bf16" if computes_bf16 and not (network is not None and _is_of_depthwise_convolutions(network)) else "fp32"


def is_depthwise(layer: nn.Module) -> bool:
    """Return whether ``layer`` is a convolution whose filters see one channel each."""
    return isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels


def _is_of_depthwise_convolutions(network: nn.Module) -> bool:
    """Return whether many convolutions of ``network`` are depthwise, and more than it has linear layers.

    Linear layers are what bf16 speeds up most: ConvNeXt, which has two to each depthwise convolution, gains by it.
    """
    layers = list(network.modules())
    num_convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    num_linear = sum(isinstance(layer, nn.Linear) for layer in layers)
    return sum(map(is_depthwise, layers)) > max(DEPTHWISE_SHARE * num_convolutions, num_linear)


@contextlib.contextmanager
def output_folder(target: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of ``target``; processes other than the main one get one that is discarded.

    Raises:
        BusyError: another run is writing the same folder.
    """
    with replaced_folder(target) if is_main() else _discarded() as folder:
        yield folder


@contextlib.contextmanager
def _discarded() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
