"""Texts that change with the user's images, whose paths lie outside the repository, where DVC does not look."""

import datetime as dt
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from pipeline.core.errors import UserError, readable_file
from pipeline.core.files import sha256
from pipeline.core.printable import printable
from pipeline.data.sources.archive import AN_ARCHIVE, is_archive
from pipeline.data.sources.listing import Folder, list_folder


def directory_or_archive(root: Path, download: bool) -> str:  # noqa: ARG001, FBT001  (signature of a Fingerprint)
    """Return a text that changes when images below ``root`` are added, removed, renamed or replaced.

    An archive is hashed whole; of a directory the names, sizes and times of its files, which is quick and may find a
    change where there is none: then the same images are packed once more.

    Raises:
        UserError: ``root`` does not exist, is no archive of a known kind, or cannot be read.
    """
    return checked_files(root, lambda _: None)


def checked_files(root: Path, check: Callable[[Folder], None]) -> str:
    """Return the same as ``directory_or_archive``, once ``check`` has seen what lies in a directory; no file is opened.

    Raises:
        UserError: as there, or what ``check`` raises.
    """
    if root.is_file():
        if not is_archive(root.name):
            raise UserError(f"prepare_data.root: neither a directory nor {AN_ARCHIVE}: {printable(root)}")
        with readable_file(root):
            return f"archive {sha256(root)}"
    if not root.is_dir():
        raise UserError(
            f"prepare_data.root: no such directory or archive: {printable(root)}{printable(_counted_from(root))}"
        )
    top = list_folder(root)
    check(top)
    digest = hashlib.sha256()
    for folder in top.walk():
        place = folder.path.relative_to(root)
        for name in folder.files:
            file = folder.path / name
            with readable_file(file):
                facts = file.stat()
            digest.update(os.fsencode(place / name) + f"\0{facts.st_size} {facts.st_mtime_ns}\0".encode())
    return f"directory {digest.hexdigest()}"


def newest_day(root: Path) -> str | None:
    """Return the day (UTC, 2026-01-31) on which the newest file of ``root``, a directory or archive, was written.

    None: there is no file, or its time is none that a calendar has.

    Raises:
        UserError: a folder or file cannot be read.
    """
    files = [root] if root.is_file() else [at.path / name for at in list_folder(root).walk() for name in at.files]
    with readable_file(root):
        seconds = max((file.stat().st_mtime for file in files), default=None)
    if seconds is None:
        return None
    try:
        return dt.datetime.fromtimestamp(seconds, dt.UTC).date().isoformat()
    except (OverflowError, ValueError):
        return None


def fetched_by_torchvision(name: str) -> Callable[[Path, bool], str]:
    """Return the fingerprint of a data set whose files torchvision itself verifies, so that its name says enough."""

    def fingerprint(root: Path, download: bool) -> str:  # noqa: FBT001  (signature of a Fingerprint)
        if not download and not root.is_dir():
            raise UserError(
                f"prepare_data.root: no such directory: {root}{_counted_from(root)}; give that of {name}, "
                "or set download to true"
            )
        return name

    return fingerprint


def _counted_from(root: Path) -> str:
    """Return from where a relative ``root`` counts: DVC runs some experiments in a copy of the repository."""
    return "" if root.is_absolute() else f" in {Path.cwd()}; an absolute path is found from everywhere"
