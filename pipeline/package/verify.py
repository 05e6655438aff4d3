"""Whether a package is whole, and computes on this host what was trained."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.core.arrays import is_finite
from pipeline.core.errors import UserError
from pipeline.core.signature import Signature
from pipeline.export.folder import MANIFEST
from pipeline.package.description import CLASS_NAMES_FILE
from pipeline.package.engine_register import engine_fault, listed_engines, sidecar_fault
from pipeline.package.reader import Package
from pipeline.package.signing import Signer, check_signature
from pipeline.package.sums import AGAIN, SIGNATURE, SUMS, damaged_files, read_sums
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.engine_file import sidecar
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.parity import Parity
from pipeline.tasks.verification import verify

ENGINES = "engines"
"""Folder of what ``build-engine`` adds on the device, and lists there: see ``engine_register``."""


PLANS = (f"{ENGINES}/*.plan", "triton/*/*/model.plan")
"""Where engines may lie that the sums do not list; earlier versions put one into the Triton repository as well."""


STRANGE = "it does not belong to the package; move it elsewhere"


class VerifiedFile(NamedTuple):
    """One file that gives the outputs that it must give."""

    file: str
    parity: Parity


class Verified(NamedTuple):
    """A package that is whole, and right on this host."""

    package: Package
    files: list[VerifiedFile]
    signer: Signer | None
    """Who signed it, where that was asked for."""


def verify_package(
    folder: Path, *, provider: str, num_threads: int, signers: Path | None = None, identity: str | None = None
) -> Verified:
    """Return the package in ``folder``, and each ONNX file, verified on the packaged images.

    All files of the package are as their sums say.

    Args:
        signers: the keys that are trusted, one of which must have signed the sums; None: a signature does not matter.
        identity: the name there whose key it must be; None: any of them.

    Raises:
        UserError: ``folder`` is no package, or not signed as asked for; or a file is missing, damaged, tampered with,
            or not of the package; a line names each.
        GateError: a file does not give the packaged outputs on this host.
    """
    signer = None
    if (folder / MANIFEST).is_file():
        if signers is not None:
            signer = check_signature(folder, signers, identity)
        _require_whole(folder)
    package = Package.open(folder)
    found = []
    for precision, path in package.files.items():
        runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads)
        require_signature(package.signature, runtime, path)
        found.append(
            VerifiedFile(path.name, verify_samples(package, precision, runtime, gpu_kernels=provider != "cpu"))
        )
    return Verified(package, found, signer)


def _require_whole(folder: Path) -> None:
    sums = read_sums(folder)
    damaged = [f"{fault}; {AGAIN}" for fault in damaged_files(folder, {*sums, MANIFEST, CLASS_NAMES_FILE}, sums)]
    faults = [*damaged, *_unlisted_files(folder, sums), *_strange_engines(folder, sums)]
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
    """Yield a line on each file that neither the list of sums nor ``build-engine`` put there, and on each link.

    A folder in which nothing can be the package's has one line for all that it holds: an environment that was made
    there has thousands of files.
    """
    plans = {path for pattern in PLANS for path in folder.glob(pattern) if path.is_file()}
    sidecars = {sidecar(plan) for plan in plans if plan.parent == folder / ENGINES}
    known = {folder / name for name in (*sums, SUMS, SIGNATURE)} | plans | sidecars
    homes = {folder / ENGINES}.union(*(path.parents for path in known))
    for path in _entries(folder, homes):
        if path.is_symlink():
            yield f"{path}: a link; a package has none"
        elif path.is_dir() and any(not inner.is_dir() or inner.is_symlink() for inner in path.rglob("*")):
            yield f"{path}: nothing in this folder is listed in {SUMS}; {STRANGE}"
        elif not path.is_dir() and path not in known:
            yield f"{path}: not listed in {SUMS}; {STRANGE}"


def _entries(folder: Path, homes: set[Path]) -> Iterator[Path]:
    """Yield what is in ``folder``, sorted, and in those of the folders below it that are among ``homes``."""
    for path in sorted(folder.iterdir()):
        if path in homes and path.is_dir() and not path.is_symlink():
            yield from _entries(path, homes)
        else:
            yield path


def _strange_engines(folder: Path, sums: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on each engine that was not built here from this package, though the sums may list it."""
    plans = sorted(path for path in folder.rglob("*.plan") if path.is_file())
    listed = listed_engines() if plans else {}
    for plan in plans:
        fault = engine_fault(plan, sums, listed)
        if fault is None and plan.parent == folder / ENGINES:
            fault = sidecar_fault(plan, listed)
        if fault is not None:
            yield fault


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
