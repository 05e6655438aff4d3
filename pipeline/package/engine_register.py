"""The list of the engines that were built on this host: it lies with the user, where no package can write.

An engine can carry code that runs on the host, and a package may come with engines that say of themselves where they
are from. So what a package says counts for nothing: an engine is trusted where this list has its sum.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.core.files import Json, exclusive, sha256, write_json
from pipeline.core.plain import Part, read_plain
from pipeline.core.plain_file import read_plain_file, sum_of_plain_file
from pipeline.core.printable import printable
from pipeline.core.strict_json import parse_json
from pipeline.runtimes.engine_file import LARGEST as LARGEST_SIDECAR
from pipeline.runtimes.engine_file import LARGEST_PLAN, read_sidecar, sidecar

LARGEST = 2**26
"""Bytes of the list."""
AGAIN = "delete it, or build it again (build-engine)"


@dataclass(frozen=True, kw_only=True)
class Entry(Part):
    """What the list says of an engine."""

    onnx: str
    onnx_sha256: str
    sidecar_sha256: str


@dataclass(frozen=True, kw_only=True)
class Register(Part):
    """The list: an entry for each engine, by its SHA-256."""

    engines: dict[str, Entry]


def register_path() -> Path:
    """Return the file of the list: ``fmkt/engines.json`` in XDG_STATE_HOME, which is ~/.local/state unless it is set.

    Raises:
        UserError: neither is known.
    """
    given = Path(os.environ.get("XDG_STATE_HOME", ""))  # where that is relative, the standard passes over it
    try:
        place = given if given.is_absolute() else Path.home() / ".local/state"
    except RuntimeError as error:
        raise UserError(f"this user has no home directory ({error}); set XDG_STATE_HOME to a folder") from error
    return place / "fmkt" / "engines.json"


def listed_engines() -> dict[str, Json]:
    """Return what is known of each engine that was built here, by its SHA-256; nothing where none was.

    Raises:
        UserError: the list cannot be read, or is damaged.
    """
    path = register_path()
    if not path.exists() and not path.is_symlink():
        return {}
    data = read_plain_file(path, most=LARGEST, links=True)
    try:
        content = parse_json(data)
        read_plain(Register, content)
    except ValueError as error:
        raise UserError(
            f"{path}: not the list of engines that build-engine writes ({error}); delete it, and build engines again"
        ) from error
    engines: dict[str, Json] = content["engines"]
    return engines


def require_register() -> None:
    """Raise UserError where the list could not be written; asked before a build, which takes minutes."""
    listed_engines()
    path = register_path()
    try:
        _make_folder(path)
        with exclusive(path, wait=True):
            pass
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}), and engines that are built here are listed there; set "
            "XDG_STATE_HOME to a folder that can be"
        ) from error


def list_engine(plan: Path, *, package: str) -> None:
    """Add the engine in the file ``plan``, which was built here just now; its sidecar lies beside it.

    Processes that do so at the same time wait for each other.

    Args:
        package: the name of the package that it was built from.
    """
    about = read_sidecar(plan)
    entry = {
        "package": package,
        "plan": str(plan.resolve()),
        "onnx": about["onnx"],
        "onnx_sha256": about["onnx_sha256"],
        "sidecar_sha256": sha256(sidecar(plan)),
        "built": datetime.now(timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017  (Python 3.10 has no UTC)
    }
    path = register_path()
    _make_folder(path)
    with exclusive(path, wait=True):
        write_json(path, {"engines": {**listed_engines(), about["plan_sha256"]: entry}})


def _make_folder(path: Path) -> None:
    """Make the folder of the list, for this user alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)


def engine_fault(plan: Path, sums: Mapping[str, str], listed: Mapping[str, Json], *, needs_sidecar: bool) -> str | None:
    """Return a line on what speaks against the engine in the file ``plan`` of a package; None: it was built here.

    Args:
        sums: those of the package's own files.
        listed: what ``listed_engines`` returns.
        needs_sidecar: its sidecar must lie beside it as it was.
    """
    shown, beside = printable(plan), sidecar(plan)
    try:
        entry = listed.get(sum_of_plain_file(plan, most=LARGEST_PLAN))
        if entry is None:
            return f"{shown}: not built on this host, or changed since; {AGAIN}"
        if sums.get(entry["onnx"]) != entry["onnx_sha256"]:
            return f"{shown}: built from another {printable(entry['onnx'])} than this package's; {AGAIN}"
        if needs_sidecar and not beside.is_file():
            return f"{printable(beside)}: missing; build the engine again (build-engine)"
        if needs_sidecar and sum_of_plain_file(beside, most=LARGEST_SIDECAR) != entry["sidecar_sha256"]:
            return f"{printable(beside)}: changed since build-engine wrote it; build the engine again (build-engine)"
    except UserError as error:
        return str(error)
    return None
