"""A directory, or an archive unpacked for as long as it is read."""

import contextlib
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from pipeline.core.durable import project_root
from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable
from pipeline.core.scratch import UNPACKED, scratch_folder

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".zip")
AN_ARCHIVE = f"an archive ({', '.join(SUFFIXES)})"
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error, OSError),
    *(RuntimeError, ValueError, ArithmeticError, LookupError),
)
"""What the standard library raises at damaged, encrypted (RuntimeError) or oddly compressed archives.

Numbers and offsets in a damaged archive are anything, so the last line is what reading by them may raise.
"""
ZIP_HEAD = b"PK"
ZIP_FOLDER = 0x10
"""The attribute by which Windows marks folders."""
BLOCK = 2**20


def is_archive(name: str) -> bool:
    """Return whether a file of this ``name`` is an archive that is read."""
    return name.lower().endswith(SUFFIXES)


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[Path]:
    """Yield ``path`` itself where it is a directory, else a folder with the archive's files, in ``.cache/unpacked``.

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
    with scratch_folder(project_root() / UNPACKED) as folder:
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


class _Member(NamedTuple):
    """What an archive says of one of its members."""

    name: str
    """As it stands there; archives made on Windows may divide it by backslashes."""
    size: int
    is_plain: bool
    """Whether it is a file or a folder."""


def _unpack_zip(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        items = archive.infolist()
        members = [
            _Member(item.orig_filename, item.file_size, not stat.S_ISLNK(item.external_attr >> 16)) for item in items
        ]
        targets = _targets(path, members, folder)
        for item, member, target in zip(items, members, targets, strict=True):
            if member.name.endswith(("/", "\\")) or (item.external_attr & ZIP_FOLDER and not item.file_size):
                target.mkdir(parents=True, exist_ok=True)
            else:
                with archive.open(item) as source:
                    _write(source, target)


def _unpack_tar(path: Path, folder: Path) -> None:
    with tarfile.open(path) as archive:
        items = archive.getmembers()
        members = [_Member(item.name, item.size, item.isfile() or item.isdir()) for item in items]
        targets = _targets(path, members, folder)
        for item, target in zip(items, targets, strict=True):
            if item.isdir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                source = archive.extractfile(item)
                assert source is not None
                with source:
                    _write(source, target)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(source, file, BLOCK)


def _targets(path: Path, members: Sequence[_Member], folder: Path) -> list[Path]:
    """Return where in ``folder`` each of ``members`` is to be written.

    Raises:
        UserError: there is no room for all; one is neither file nor folder, has no name, or would land elsewhere.
    """
    size, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{printable(path)}: unpacks to {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free in "
            f"{printable(folder.parent)}; free some, or unpack it elsewhere and give that directory"
        )
    return [folder / _place(path, number, member) for number, member in enumerate(members, 1)]


def _place(path: Path, number: int, member: _Member) -> PurePosixPath:
    """Return the place of ``member`` below the folder that the archive ``path`` is unpacked to."""
    name, shown = PurePosixPath(member.name.replace("\\", "/")), f"member '{printable(member.name)}'"
    if not member.name:
        raise UserError(f"{printable(path)}: member no. {number} has no name; the archive is damaged, make it again")
    if not member.is_plain:
        raise UserError(f"{printable(path)}: {shown} is a link or a device; only files and folders are read")
    if name.is_absolute() or ".." in name.parts or (name.parts and name.parts[0].endswith(":")):
        raise UserError(
            f"{printable(path)}: {shown} would be written outside the target directory; the archive is refused"
        )
    return name
