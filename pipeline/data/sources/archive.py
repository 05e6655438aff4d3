"""A directory, or an archive unpacked for as long as it is read."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from pipeline.core.damage import DAMAGED_ZIP
from pipeline.core.durable import project_root
from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.core.scratch import UNPACKED, scratch_folder

if TYPE_CHECKING:
    from typing import Self

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
AN_ARCHIVE = f"an archive ({', '.join(SUFFIXES)})"
DAMAGE = (*DAMAGED_ZIP, tarfile.TarError, OSError)
ZIP_HEAD = b"PK"
ZIP_FOLDER = 0x10
"""The attribute by which Windows marks folders."""
BLOCK = 2**20
TAR_NOTES = frozenset(
    (
        *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
        *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    )
)
"""Kinds of tar headers behind which stands more about the next member, such as a long name; it is read as a whole."""
LONGEST_NOTE = 2**20
"""Bytes of that; names and attributes that systems take have some thousands."""


def is_archive(name: str) -> bool:
    """Return whether a file of this ``name`` is an archive that is read."""
    return name.lower().endswith(SUFFIXES)


@contextlib.contextmanager
def opened_folder(path: Path, *, place: Path | None = None) -> Iterator[Path]:
    """Yield ``path`` itself where it is a directory, else a folder with the archive's files.

    Args:
        place: where that folder is made; None: the project's ``.cache/unpacked``.

    Raises:
        UserError: there is nothing at ``path``; it is no archive of a known kind; it is damaged; or a member is a link,
            a device, without a name, or would land outside the directory that it is unpacked to.
    """
    shown = printable(path)
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise UserError(f"{shown}: no such directory or archive")
    if not (is_archive(path.name) and path.is_file()):
        raise UserError(
            f"{shown}: neither a directory nor {AN_ARCHIVE}; give the directory that it lies in, unpack it into one, "
            "or pack it as an archive"
        )
    with readable_file(path), path.open("rb") as file:
        is_zip = file.read(len(ZIP_HEAD)) == ZIP_HEAD
    with scratch_folder(place or project_root() / UNPACKED) as folder:
        try:
            (_unpack_zip if is_zip else _unpack_tar)(path, folder)
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(
                f"{shown}: the archive cannot be unpacked ({_in_words(error)}); fetch it again, or free disk space"
            ) from error
        yield folder


def _in_words(error: Exception) -> str:
    if isinstance(error, tarfile.ReadError):
        return "it is neither a zip nor a tar file, or is cut off"  # its text lists what each reader says
    return printable(error)


def _unpack_zip(path: Path, folder: Path) -> None:
    room = _Room(path, folder)
    with zipfile.ZipFile(path) as archive:
        items = archive.infolist()
        places = []
        for number, item in enumerate(items, 1):  # all that it says of itself, before anything is unpacked
            is_plain = not stat.S_ISLNK(item.external_attr >> 16)
            places.append(_place(path, number, item.orig_filename, is_plain=is_plain))
            room.take(item.file_size)
        for item, place in zip(items, places, strict=True):
            target = folder / place
            if item.orig_filename.endswith(("/", "\\")) or (item.external_attr & ZIP_FOLDER and not item.file_size):
                target.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(item) as source:
                    _write(source, target)


class _TarHeader(tarfile.TarInfo):
    """The header of a member, refused where reading on by it would take memory without bound."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in TAR_NOTES and found.size > LONGEST_NOTE):
            raise ValueError(f"a header in it says that {found.size} bytes follow")
        return found


def _unpack_tar(path: Path, folder: Path) -> None:
    """Write each member as its header is met: a compressed archive is read once, and what it holds is not listed."""
    room = _Room(path, folder)
    with tarfile.open(path, tarinfo=_TarHeader) as archive:
        number = 0
        while (item := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep millions of them out of little space
            number += 1
            target = folder / _place(path, number, item.name, is_plain=item.isfile() or item.isdir())
            room.take(item.size)
            if item.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                source = archive.extractfile(item)
                assert source is not None
                with source:
                    _write(source, target)
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if any(archive.fileobj.read(tarfile.BLOCKSIZE)):  # the library takes a damaged header for the end
            raise ValueError(f"a header in it, at byte {archive.offset}, is damaged")


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)


class _Room:
    """What is free where an archive is unpacked to, and what of it is taken."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._place = path, folder.parent
        found = os.statvfs(folder)
        self._free, self._files = found.f_bavail * found.f_frsize, found.f_favail
        self._taken = self._count = 0

    def take(self, size: int) -> None:
        """Take room for a member of ``size`` bytes; raises UserError where there is none left."""
        self._taken += size
        self._count += 1
        if self._taken > self._free:
            raise UserError(
                f"{printable(self._path)}: unpacks to {self._taken / 2**30:.1f} GiB or more, {self._free / 2**30:.1f} "
                f"GiB are free in {printable(self._place)}; free some, or unpack it elsewhere and give that directory"
            )
        if self._files and self._count > self._files:  # 0: the file system does not count them
            raise UserError(
                f"{printable(self._path)}: has {self._count} members or more, {self._files} more files can be in "
                f"{printable(self._place)}; unpack it elsewhere and give that directory"
            )


def _place(path: Path, number: int, name: str, *, is_plain: bool) -> PurePosixPath:
    """Return the place of a member below the folder that the archive ``path`` is unpacked to.

    Args:
        name: as it stands there; archives made on Windows may divide it by backslashes.
        is_plain: whether it is a file or a folder.

    Raises:
        UserError: it is neither, has no name, or would land elsewhere.
    """
    place, shown = PurePosixPath(name.replace("\\", "/")), f"member '{printable(name)}'"
    if not name:
        raise UserError(f"{printable(path)}: member no. {number} has no name; the archive is damaged, make it again")
    if not is_plain:
        raise UserError(f"{printable(path)}: {shown} is a link or a device; only files and folders are read")
    if place.is_absolute() or ".." in place.parts or (place.parts and place.parts[0].endswith(":")):
        raise UserError(
            f"{printable(path)}: {shown} would be written outside the target directory; the archive is refused"
        )
    return place
