"""Whether a package is whole, and computes on this host what was trained."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.arrays import is_finite
from pipeline.core.errors import UserError
from pipeline.core.files import read_json, sha256
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST
from pipeline.package.description import CLASS_NAMES_FILE
from pipeline.package.reader import Package
from pipeline.package.sums import AGAIN, SUMS, damaged_files, read_sums
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.parity import Parity
from pipeline.tasks.verification import verify

ENGINES = "engines"
"""Folder of what ``build-engine`` adds on the device; each engine has its sum in its own sidecar."""


class VerifiedFile(NamedTuple):
    """One file that gives the outputs that it must give."""

    file: str
    parity: Parity


def verify_package(folder: Path, *, provider: str, num_threads: int) -> tuple[Package, list[VerifiedFile]]:
    """Return the package in ``folder``, and each ONNX file, verified on the packaged images.

    All files of the package are as their sums say.

    Raises:
        UserError: ``folder`` is no package; or a file is missing, damaged, tampered with, or not of the package; a line
            names each.
        GateError: a file does not give the packaged outputs on this host.
    """
    if (folder / MANIFEST).is_file():
        _require_whole(folder)
    package = Package.open(folder)
    found = []
    for precision, path in package.files.items():
        runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads)
        require_signature(package.signature, runtime, path)
        found.append(
            VerifiedFile(path.name, verify_samples(package, precision, runtime, gpu_kernels=provider != "cpu"))
        )
    return package, found


def _require_whole(folder: Path) -> None:
    sums = read_sums(folder)
    damaged = [f"{fault}; {AGAIN}" for fault in damaged_files(folder, {*sums, MANIFEST, CLASS_NAMES_FILE}, sums)]
    faults = [*damaged, *_unlisted_files(folder, sums), *_damaged_engines(folder)]
    if faults:
        raise UserError("\n".join(faults))


def require_signature(signature: Signature, runtime: OnnxRuntime, file: Path) -> None:
    """Run ``runtime`` over ``file`` once, on a black image, and look at what it takes and returns.

    Raises:
        UserError: that is not what ``signature`` says.
    """
    found = _words(runtime.input_name, runtime.input_dtype, runtime.output_names)
    expected = _words(signature.input.name, signature.input.dtype, signature.output_names)
    if found != expected:
        raise UserError(f"{file}: takes {found}, expected {expected}; wrong package?")
    try:
        outputs = runtime.infer(np.zeros((1, *signature.input.shape), signature.input.dtype))
    except Exception as error:  # ONNX Runtime's have no class in common
        reason = " ".join(str(error).split())[:200]
        shape = list(signature.input.shape)
        raise UserError(f"{file}: does not take one image of {shape} ({reason}); wrong package?") from error
    for spec in signature.outputs:
        array, shape = outputs[spec.name], [1, *spec.shape]
        if list(array.shape) != shape or array.dtype != spec.dtype or not is_finite(array):
            got, wanted = f"{array.dtype} {list(array.shape)}", f"finite {spec.dtype} {shape}"
            raise UserError(f"{file}: a black image gives {spec.name} {got}, expected {wanted}; wrong package?")


def _words(taken: str, dtype: str, outputs: Iterable[str]) -> str:
    return f"{taken} ({dtype}) and returns {', '.join(sorted(outputs))}"


def _unlisted_files(folder: Path, sums: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on each file that neither the list of sums nor ``build-engine`` put there, and on each link."""
    sidecars = list((folder / ENGINES).glob("*.plan.json"))
    plans = {read_json(sidecar).get("plan_sha256") for sidecar in sidecars}
    built = {*sidecars, *(sidecar.with_suffix("") for sidecar in sidecars)}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield f"{path}: a link; a package has none"
        elif path.is_dir() or name in sums or name == SUMS or path in built:
            continue
        elif not (name.startswith("triton/") and path.name == "model.plan" and sha256(path) in plans):
            yield f"{path}: not listed in {SUMS}; it does not belong to the package"


def _damaged_engines(folder: Path) -> Iterator[str]:
    for sidecar in sorted((folder / ENGINES).glob("*.plan.json")):
        plan = sidecar.with_suffix("")
        if not plan.is_file():
            yield f"{plan}: missing"
        elif sha256(plan) != read_json(sidecar).get("plan_sha256"):
            yield f"{plan}: differs from its SHA-256 in {sidecar.name}"


def verify_samples(package: Package, precision: str, runtime: Runtime, *, gpu_kernels: bool) -> Parity:
    """Return how far ``runtime``, over the file of ``precision``, is from the outputs that the package demands.

    Args:
        gpu_kernels: it does not run on the CPU.

    Raises:
        UserError: the samples are missing or damaged.
        GateError: it is further than the manifest's gate allows; names the file and the figure.
    """
    samples = package.samples
    gate = package.gate(precision, gpu_kernels=gpu_kernels)
    what = f"{package.file(precision)}, packaged samples"
    batch_size = min(len(samples), package.task.batch_size)
    return verify(runtime, samples, gate, what=what, batch_size=batch_size).parity
