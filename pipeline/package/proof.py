"""The one way from a file of a package to a session over it: whole, of this package, and done in time."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.core.arrays import is_finite
from pipeline.core.errors import UserError
from pipeline.core.plain import shown
from pipeline.core.signature import Signature
from pipeline.core.time_limit import ended_after
from pipeline.package.reader import Package
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.runtimes.provider import PROOF_SECONDS
from pipeline.tasks.parity import Parity
from pipeline.tasks.verification import verify


def open_runtime(
    package: Package,
    precision: str,
    *,
    provider: str,
    num_threads: int,
    spinning: bool = True,
    seconds: float = PROOF_SECONDS,
) -> OnnxRuntime:
    """Return a session over the file of ``precision``, which must be as its sum says.

    Args:
        spinning: see ``OnnxRuntime``.
        seconds: that it may take to load and to answer one image; the process ends where it takes longer.

    Raises:
        UserError: the package has no such file, it is damaged or another than the package says, or the provider is not
            available here.
    """
    (path,) = package.verified([package.file(precision).name])
    with ended_after(seconds, _late(path, seconds)):
        runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads, spinning=spinning)
        require_signature(package.signature, runtime, path)
    return runtime


def require_signature(signature: Signature, runtime: OnnxRuntime, file: Path) -> None:
    """Run ``runtime`` over ``file`` once, on a black image, and look at what it takes and returns.

    Raises:
        UserError: that is not what ``signature`` says.
    """
    found = _words(runtime.input_name, runtime.input_dtype, runtime.output_names)
    expected = _words(signature.input.name, signature.input.dtype, signature.output_names)
    if found != expected:
        raise UserError(f"{file}: takes {shown(found)[1:-1]}, expected {expected}; wrong package?")
    try:
        outputs = runtime.infer(np.zeros((1, *signature.input.shape), signature.input.dtype))
    except Exception as error:  # ONNX Runtime's have no class in common
        reason = " ".join(str(error).split())[:200]
        shape = list(signature.input.shape)
        raise UserError(f"{file}: does not take one image of {shape} ({reason}); wrong package?") from error
    for spec in signature.outputs:
        array, shape = outputs[spec.name], [1, *spec.shape]
        is_array = isinstance(array, np.ndarray)  # a network can return lists and maps as well
        if not is_array or list(array.shape) != shape or array.dtype != spec.dtype or not is_finite(array):
            got = f"{array.dtype} {list(array.shape)}" if is_array else f"a {type(array).__name__}"
            wanted = f"finite {spec.dtype} {shape}"
            raise UserError(f"{file}: a black image gives {spec.name} {got}, expected {wanted}; wrong package?")


def _words(taken: str, dtype: str, outputs: Iterable[str]) -> str:
    return f"{taken} ({dtype}) and returns {', '.join(sorted(outputs))}"


def verify_samples(
    package: Package, precision: str, runtime: Runtime, *, gpu_kernels: bool, seconds: float = PROOF_SECONDS
) -> Parity:
    """Return how far ``runtime``, over the file of ``precision``, is from the outputs that the package demands.

    Args:
        gpu_kernels: it does not run on the CPU.
        seconds: that it may take; the process ends where it takes longer.

    Raises:
        UserError: the samples are missing or damaged.
        GateError: it is further than the manifest's gate allows; names the file and the figure.
    """
    samples, path = package.samples, package.file(precision)
    gate = package.gate(precision, gpu_kernels=gpu_kernels)
    batch_size = min(len(samples), package.task.batch_size)
    with ended_after(seconds, _late(path, seconds)):
        return verify(runtime, samples, gate, what=f"{path}, packaged samples", batch_size=batch_size).parity


def _late(path: Path, seconds: float) -> str:
    return (
        f"{path}: not loaded and proved within {seconds:g} s; do not use this package, or give it longer with "
        "--proof-seconds"
    )
