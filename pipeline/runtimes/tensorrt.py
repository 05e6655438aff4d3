"""TensorRT through polygraphy."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Outputs, concatenate, first_rows
from pipeline.core.errors import GateError, UserError
from pipeline.core.files import Json
from pipeline.core.signature import Signature
from pipeline.runtimes.engine_file import read_sidecar, read_signature, sidecar

DTYPES = {"float32": "FLOAT", "int32": "INT32", "uint8": "UINT8"}
"""From each type of an input or output to TensorRT's name of it."""


class TensorrtRuntime:
    """An engine in memory, for the GPU and the TensorRT that built it.

    Args:
        plan: the serialized engine. It can carry host code: take those alone whose sum you know.
        description: content of the engine's sidecar.

    Raises:
        UserError: TensorRT cannot load the engine here.
        GateError: inputs, outputs or batches are not those of the description.
    """

    def __init__(self, plan: bytes, *, description: Json) -> None:
        import tensorrt
        from polygraphy.backend.trt import TrtRunner, get_trt_logger

        self.description = description
        self.signature = read_signature(description)
        self.input_dtype = self.signature.input.dtype
        log = get_trt_logger()
        tensorrt.init_libnvinfer_plugins(log, "")
        self.runtime = tensorrt.Runtime(log)
        self.runtime.engine_host_code_allowed = description["options"]["version_compatible"]
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise UserError(
                f"TensorRT {tensorrt.__version__} cannot load this engine, which TensorRT {description['tensorrt']} "
                f"built on {description['gpu']}; build it again here"
            )
        require_interface(tensorrt, engine, self.signature, description["batch"])
        self.runner = TrtRunner(engine)
        self.runner.activate()

    def infer(self, images: NDArray[Any]) -> Outputs:
        """Return the outputs in host memory; more images than the engine takes go in several calls."""
        sizes = self.description["batch"]
        return infer_within(self._infer, images, smallest=sizes["min"], largest=sizes["max"])

    def _infer(self, images: NDArray[Any]) -> Outputs:
        found = self.runner.infer({self.signature.input.name: images})
        return {name: found[name].copy() for name in self.signature.output_names}

    def describe(self) -> str:
        """Return runtime, version, GPU and precision in words, as the engine's sidecar records them."""
        facts = self.description
        return f"TensorRT {facts['tensorrt']}, {facts['gpu']}, {facts['precision']}"


def open_engine(plan: Path) -> TensorrtRuntime:
    """Return the engine in the file ``plan``, whose sum must be the one in its sidecar.

    Raises:
        UserError: a file is missing, the engine is not the one that was verified, or TensorRT cannot load it here.
    """
    description = read_sidecar(plan, links=True)
    try:
        data = plan.read_bytes()
    except OSError as error:
        raise UserError(f"{plan}: cannot be read ({error.strerror}); build the engine again") from error
    found, known = hashlib.sha256(data).hexdigest(), description.get("plan_sha256")
    if found != known:
        raise UserError(
            f"{plan}: its SHA-256 is {found}, {sidecar(plan).name} says {known}: damaged, or not the engine that was "
            "verified here; build it again"
        )
    return TensorrtRuntime(data, description=description)


def require_interface(trt: Any, engine: Any, signature: Signature, batches: Mapping[str, int]) -> None:
    """Raise GateError where the deserialized ``engine`` has other tensors than ``signature``, or takes other batches.

    Args:
        batches: smallest, tuned and largest batch by min, opt and max.
    """
    mode, types = trt.TensorIOMode, trt.DataType.__members__
    taken = signature.input
    expected = {taken.name: (mode.INPUT, types[DTYPES[taken.dtype]])}
    expected |= {spec.name: (mode.OUTPUT, types[DTYPES[spec.dtype]]) for spec in signature.outputs}
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: (engine.get_tensor_mode(name), engine.get_tensor_dtype(name)) for name in names}
    if found != expected:
        raise GateError(f"the engine's inputs and outputs are {_words(found)}, expected {_words(expected)}")
    profile = [next(iter(shape)) for shape in engine.get_tensor_profile_shape(taken.name, 0)]
    if profile != [batches[name] for name in ("min", "opt", "max")]:
        raise GateError(f"the engine takes batches of {profile} (min, opt, max), asked for {dict(batches)}")


def _words(tensors: Mapping[str, tuple[Any, Any]]) -> str:
    return ", ".join(f"{name} ({mode.name}, {dtype.name})" for name, (mode, dtype) in sorted(tensors.items()))


def infer_within(
    infer: Callable[[NDArray[Any]], Outputs], images: NDArray[Any], *, smallest: int, largest: int
) -> Outputs:
    """Return the outputs for ``images`` from calls of ``infer`` with ``smallest`` to ``largest`` images each.

    A batch that is too small is filled up with black images, whose outputs are dropped.
    """
    parts = []
    for start in range(0, len(images), largest):
        part = images[start : start + largest]
        missing = max(smallest - len(part), 0)
        filled = np.concatenate([part, np.zeros((missing, *part.shape[1:]), part.dtype)]) if missing else part
        parts.append(first_rows(infer(filled), len(part)))
    return concatenate(parts)
