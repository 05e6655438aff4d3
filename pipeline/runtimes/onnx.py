"""ONNX Runtime: on the CPU, through CUDA or through TensorRT; the one asked for, or an error."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from models.core.table import choose
from pipeline.core.arrays import Outputs
from pipeline.core.errors import GateError, UserError
from pipeline.core.printable import printable

logger = logging.getLogger(__name__)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NEEDS = {
    "cuda": "an NVIDIA GPU with its driver, CUDA 13 and cuDNN 9 (pip install onnxruntime-gpu, not onnxruntime)",
    "tensorrt": "an NVIDIA GPU with its driver, CUDA 13 and TensorRT 10 (ONNX Runtime 1.31 cannot load TensorRT 11)",
}
ERROR, FATAL = 3, 4
"""Of what ONNX Runtime prints by itself: what went wrong is in its exceptions, and names of a file are not escaped."""
LONGEST_REASON = 400
"""Characters of what it says."""
INPUT_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}


class OnnxRuntime:
    """A session over the ONNX file ``path``.

    Args:
        provider: cpu, cuda or tensorrt. There is no silent fallback to another.
        num_threads: CPU threads within an operator.
        optimize: let ONNX Runtime rewrite the graph, as it does when deployed; False runs the file as it is.
        spinning: let idle threads wait in a loop, which is faster alone and slower beside other work.

    Raises:
        UserError: the file is missing or no valid model, or the provider is not available here.
    """

    def __init__(
        self, path: Path, *, provider: str = "cpu", num_threads: int = 1, optimize: bool = True, spinning: bool = True
    ) -> None:
        name = choose(PROVIDERS, provider, kind="provider")
        require_provider(provider, "--provider")
        self.path = path
        with _speaking_of(path, UserError, "load"):
            self.session = onnxruntime.InferenceSession(
                str(path),
                _options(num_threads, optimize=optimize, spinning=spinning, quiet=provider == "cpu"),
                providers=[name],
                enable_fallback=0,  # of ONNX Runtime's own, which prints and tries again
            )
        used = self.session.get_providers()[0]
        if used != name:
            raise UserError(f"--provider: got {provider!r}, but ONNX Runtime fell back to {used}; {_needs(provider)}")
        self.num_threads = num_threads
        taken = [(entry.name, INPUT_TYPES.get(entry.type, entry.type)) for entry in self.session.get_inputs()]
        if len(taken) != 1:
            raise UserError(f"{path}: takes {len(taken)} inputs, expected one; export or fetch it again")
        self.input_name: str
        ((self.input_name, self.input_dtype),) = taken
        self.output_names = [output.name for output in self.session.get_outputs()]

    def infer(self, images: NDArray[Any]) -> Outputs:
        """Return the outputs for images (B, 3, H, W) of ``input_dtype``.

        Raises:
            GateError: the graph cannot be computed, although it could be loaded.
        """
        with _speaking_of(self.path, GateError, "run"):
            found = self.session.run(self.output_names, {self.input_name: images})
        return dict(zip(self.output_names, found, strict=True))

    def describe(self) -> str:
        """Return runtime, version, provider and threads in words."""
        provider = self.session.get_providers()[0]
        return f"ONNX Runtime {onnxruntime.__version__}, {provider}, {self.num_threads} CPU threads"


def available_providers() -> list[str]:
    """Return the providers that can run on this host; those that ONNX Runtime was built with say nothing of that."""
    found = {device.ep_name for device in onnxruntime.get_ep_devices()}
    return [name for name, provider in PROVIDERS.items() if provider in found]


def require_provider(provider: str, key: str) -> None:
    """Raise UserError, naming ``key``, where ``provider`` cannot run on this host."""
    if provider != "cpu" and provider not in available_providers():
        raise UserError(f"{key}: got {provider!r}, which is not available here; {_needs(provider)}")


def _needs(provider: str) -> str:
    return f"it needs {NEEDS[provider]}; available here: {', '.join(available_providers())}"


def _options(num_threads: int, *, optimize: bool, spinning: bool, quiet: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL if quiet else ERROR  # on a GPU they say why a provider cannot be had
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    return options


@contextlib.contextmanager
def _speaking_of(path: Path, kind: type[Exception], verb: str) -> Iterator[None]:
    """Turn an error of ONNX Runtime, while it is to ``verb`` the file ``path``, into one of ``kind``."""
    try:
        yield
    except Exception as error:  # its exceptions share no base class, and of damaged files it raises Python's own too
        reason = printable(" ".join(str(error).split()))[:LONGEST_REASON]
        raise kind(f"{path}: ONNX Runtime cannot {verb} it ({reason}); export or fetch it again") from error
