"""The list of sums by which a package shows whether it is whole."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError
from pipeline.core.files import sha256

SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
"""The signature of the list, where the package has one; it cannot be listed itself."""
AGAIN = "fetch the package again"


def damaged_files(folder: Path, names: Iterable[str], sums: Mapping[str, str]) -> list[str]:
    """Return a line on each of ``names`` in ``folder`` that is missing, not in ``sums``, or not as its sum says."""
    found = []
    for name in sorted(names):
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif name not in sums:
            found.append(f"{path}: not listed in {SUMS}")
        elif sha256(path) != sums[name]:
            found.append(f"{path}: differs from its SHA-256 in {SUMS} (damaged or tampered with)")
    return found


def say_again(faults: Iterable[str]) -> list[str]:
    """Return ``faults``, each with what to do about it."""
    return [f"{fault}; {AGAIN}" for fault in faults]


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that ``SHA256SUMS`` lists, as ``sha256sum`` writes it.

    Raises:
        UserError: the list is missing or damaged, or names a file outside of ``folder``.
    """
    path, sums = folder / SUMS, {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), so {folder} is no package; {AGAIN}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of SHA-256 sums; {AGAIN}") from error
    for line in lines:
        found = re.fullmatch(r"([0-9a-f]{64})  (.+)", line)
        if found is None:
            raise UserError(f"{path}: not a list of SHA-256 sums; {AGAIN}")
        name = PurePosixPath(found[2])
        if name.is_absolute() or ".." in name.parts:
            raise UserError(f"{path}: names {found[2]!r}, which lies outside of the package; do not use this package")
        sums[found[2]] = found[1]
    return sums
