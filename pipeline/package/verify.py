"""Whether a package is whole, and computes on this host what was trained."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError
from pipeline.core.files import read_json, sha256
from pipeline.package.reader import SUMS, Package
from pipeline.runtimes.base import Runtime
from pipeline.runtimes.onnx import OnnxRuntime
from pipeline.tasks.base import Parity
from pipeline.tasks.verification import verify

ENGINES = "engines"
"""Folder of what ``build-engine`` adds on the device; each engine has its sum in its own sidecar."""


class VerifiedFile(NamedTuple):
    """One file that gives the outputs that it must give."""

    file: str
    parity: Parity


def verify_package(package: Package, *, provider: str, num_threads: int) -> list[VerifiedFile]:
    """Return each ONNX file, verified on the packaged images, all files of the package being as their sums say.

    Raises:
        UserError: a file is missing, damaged, tampered with, or not of the package; a line names each.
        GateError: a file does not give the packaged outputs on this host.
    """
    faults = [*package.damaged(package.sums), *_unlisted_files(package.folder, package.sums)]
    faults += _damaged_engines(package.folder)
    if faults:
        raise UserError("\n".join(faults))
    found = []
    for precision, path in package.files.items():
        runtime = OnnxRuntime(path, provider=provider, num_threads=num_threads)
        found.append(
            VerifiedFile(path.name, verify_samples(package, precision, runtime, gpu_kernels=provider != "cpu"))
        )
    return found


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
    gate = package.gate(precision, gpu_kernels=gpu_kernels).for_sample_size(len(samples))
    what = f"{package.file(precision)}, packaged samples"
    return verify(runtime, samples, gate, what=what, batch_size=len(samples)).parity
