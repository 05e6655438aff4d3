"""Whether a package is whole, and computes on this host what was trained."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.package.engine_register import engine_fault, listed_engines
from pipeline.package.proof import open_runtime, verify_samples
from pipeline.package.reader import NEEDED, Package, require_package
from pipeline.package.signing import Signer, check_signature
from pipeline.package.sums import AGAIN, SIGNATURE, SUMS, damaged_files, parse_sums, read_list
from pipeline.runtimes.engine_file import sidecar
from pipeline.runtimes.provider import PROOF_SECONDS
from pipeline.tasks.parity import Parity

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
    folder: Path,
    *,
    provider: str,
    num_threads: int,
    signers: Path | None = None,
    identity: str | None = None,
    seconds: float = PROOF_SECONDS,
) -> Verified:
    """Return the package in ``folder``, and each ONNX file, verified on the packaged images.

    All files of the package are as their sums say.

    Args:
        signers: the keys that are trusted, one of which must have signed the sums; None: a signature does not matter.
        identity: the name there whose key it must be; None: any of them.
        seconds: that each file may take to be loaded and proved; the process ends where one takes longer.

    Raises:
        UserError: ``folder`` is no package, or not signed as asked for; or a file is missing, damaged, tampered with,
            or not of the package; a line names each.
        GateError: a file does not give the packaged outputs on this host.
    """
    require_package(folder)
    listed = read_list(folder)
    signer = None if signers is None else check_signature(folder, listed, signers, identity)
    sums = parse_sums(folder, listed)
    _require_whole(folder, sums)
    package = Package.open(folder, sums)
    found = []
    for precision, path in package.files.items():
        runtime = open_runtime(package, precision, provider=provider, num_threads=num_threads, seconds=seconds)
        parity = verify_samples(package, precision, runtime, gpu_kernels=provider != "cpu", seconds=seconds)
        found.append(VerifiedFile(path.name, parity))
    return Verified(package, found, signer)


def _require_whole(folder: Path, sums: Mapping[str, str]) -> None:
    damaged = [f"{fault}; {AGAIN}" for fault in damaged_files(folder, {*sums, *NEEDED}, sums)]
    faults = [*damaged, *_unlisted_files(folder, sums), *_strange_engines(folder, sums)]
    if faults:
        raise UserError("\n".join(faults))


def _unlisted_files(folder: Path, sums: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on each file that neither the list of sums nor ``build-engine`` put there, and on each link.

    A folder in which nothing can be the package's has one line for all that it holds: an environment that was made
    there has thousands of files.
    """
    plans = {path for pattern in PLANS for path in folder.glob(pattern) if _is_plain(path)}
    sidecars = {sidecar(plan) for plan in plans if plan.parent == folder / ENGINES}
    known = {folder / name for name in (*sums, SUMS, SIGNATURE)} | plans | sidecars
    homes = {folder / ENGINES}.union(*(path.parents for path in known))
    for path in _entries(folder, homes):
        if path.is_symlink():
            if path not in known:  # those that are listed count as damaged
                yield f"{printable(path)}: a link; a package has none"
        elif path.is_dir() and any(not inner.is_dir() or inner.is_symlink() for inner in _all_below(path)):
            yield f"{printable(path)}: nothing in this folder is listed in {SUMS}; {STRANGE}"
        elif not path.is_dir() and path not in known:
            yield f"{printable(path)}: not listed in {SUMS}; {STRANGE}"


def _entries(folder: Path, homes: set[Path]) -> Iterator[Path]:
    """Yield what is in ``folder``, sorted, and in those of the folders below it that are among ``homes``."""
    with readable_file(folder):
        found = sorted(folder.iterdir())
    for path in found:
        if path in homes and path.is_dir() and not path.is_symlink():
            yield from _entries(path, homes)
        else:
            yield path


def _all_below(folder: Path) -> list[Path]:
    """Return files and folders below ``folder``, links among them; raises UserError where a folder cannot be read."""

    def stop(error: OSError) -> None:
        raise error

    with readable_file(folder):
        return sorted(
            Path(root, name) for root, folders, files in os.walk(folder, onerror=stop) for name in (*folders, *files)
        )


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _strange_engines(folder: Path, sums: Mapping[str, str]) -> Iterator[str]:
    """Yield a line on each engine that was not built here from this package, though the sums may list it."""
    plans = [path for path in _all_below(folder) if path.suffix == ".plan" and _is_plain(path)]
    listed = listed_engines() if plans else {}
    for plan in plans:
        fault = engine_fault(plan, sums, listed, needs_sidecar=plan.parent == folder / ENGINES)
        if fault is not None:
            yield fault
