"""The list of sums by which a package shows whether it is whole."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError
from pipeline.core.plain_file import read_plain_file, sum_of_plain_file
from pipeline.core.printable import printable

SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.sig"
"""The signature of the list, where the package has one; it cannot be listed itself."""
AGAIN = "fetch the package again"
LARGEST_LIST = 2**24
"""Bytes of the list."""
LARGEST = 2**31
"""Bytes of a file: an ONNX file, the largest of a package, cannot have more."""
LONGEST_NAME = 255
"""Characters of a file's name, its folders included."""
LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def damaged_files(folder: Path, names: Iterable[str], sums: Mapping[str, str]) -> list[str]:
    """Return a line on each of ``names`` in ``folder`` that is missing, not in ``sums``, or not as its sum says."""
    return [fault for name in sorted(names) if (fault := _damage(folder, name, sums))]


def _damage(folder: Path, name: str, sums: Mapping[str, str]) -> str | None:
    path = folder / name
    shown = printable(path)
    try:
        place = place_of(folder, name)
        if place is None:
            return f"{shown}: missing"
        if name not in sums:
            return f"{shown}: not listed in {SUMS}"
        found = sum_of_plain_file(place, most=LARGEST)
    except UserError as error:
        return str(error)
    return None if found == sums[name] else f"{shown}: differs from its SHA-256 in {SUMS} (damaged or tampered with)"


def place_of(folder: Path, name: str) -> Path | None:
    """Return where the file ``name`` of the package in ``folder`` lies; None: there is none.

    Raises:
        UserError: it is no plain file, or it or a folder on the way is a link, which may lead out of the package.
    """
    path = folder / name
    places = [*(folder / parent for parent in PurePosixPath(name).parents if parent.parts), path]
    try:
        link = next((place for place in places if place.is_symlink()), None)
        is_there, is_file = link is None and path.exists(), link is None and path.is_file()
    except (OSError, ValueError) as error:  # a name too long; a NUL in it
        raise UserError(f"{printable(path)[:200]}: cannot be read ({error.__class__.__name__})") from error
    if link is not None:
        raise UserError(f"{printable(link)}: a link; a package has none (cp -rL copies what it leads to)")
    if is_there and not is_file:
        raise UserError(f"{printable(path)}: is no plain file; {AGAIN}")
    return path if is_there else None


def say_again(faults: Iterable[str]) -> list[str]:
    """Return ``faults``, each with what to do about it."""
    return [f"{fault}; {AGAIN}" for fault in faults]


def read_list(folder: Path) -> bytes:
    """Return the bytes of ``SHA256SUMS`` in ``folder``.

    Raises:
        UserError: it is missing or no list.
    """
    path = folder / SUMS
    if place_of(folder, SUMS) is None:
        raise UserError(f"{path}: cannot be read (no such file), so {folder} is no package; {AGAIN}")
    return read_plain_file(path, most=LARGEST_LIST)


def parse_sums(folder: Path, data: bytes) -> dict[str, str]:
    """Return the SHA-256 of each file that ``data``, the list in ``folder``, names, as ``sha256sum`` writes it.

    Raises:
        UserError: the list is damaged, or names a file twice, or one outside of ``folder``.
    """
    path, sums = folder / SUMS, dict[str, str]()
    try:
        *lines, rest = data.decode().split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not a list of SHA-256 sums; {AGAIN}") from error
    known = set()
    for line in [*lines, *([rest] if rest else [])]:
        found = LINE.fullmatch(line)
        if found is None or not line.isprintable():
            raise UserError(f"{path}: not a list of SHA-256 sums; {AGAIN}")
        name = found[2]
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError(f"{path}: names {name!r}, which lies outside of the package; do not use this package")
        if {"", "."} & set(name.split("/")) or len(name) > LONGEST_NAME:
            raise UserError(f"{path}: names {name[:200]!r}, which is no name of a file; {AGAIN}")
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in known:
            raise UserError(f"{path}: names {name!r} twice, or under two names that some systems hold for one; {AGAIN}")
        known.add(folded)
        sums[name] = found[1]
    return sums


def read_sums(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that the list in ``folder`` names; raises as ``read_list``, ``parse_sums``."""
    return parse_sums(folder, read_list(folder))
