"""A directory, or an archive unpacked for as long as it is read."""

import contextlib
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.core.errors import UserError

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error, OSError, RuntimeError)
"""What the standard library raises at damaged, encrypted (RuntimeError) or oddly compressed archives."""


@contextlib.contextmanager
def opened_folder(path: Path) -> Iterator[Path]:
    """Yield ``path`` itself where it is a directory, else a temporary directory with the archive's files.

    Raises:
        UserError: there is nothing at ``path``; it is no archive of a known kind; it is damaged; or a member is a link,
            a device, or would land outside the directory that it is unpacked to.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise UserError(f"{path}: no such directory or archive")
    if not path.name.endswith(ARCHIVE_SUFFIXES):
        raise UserError(f"{path}: neither a directory nor an archive ({', '.join(ARCHIVE_SUFFIXES)})")
    with tempfile.TemporaryDirectory(prefix="fmkt-images-") as folder:
        try:
            _unpack(path, Path(folder))
        except DAMAGE as error:
            raise UserError(
                f"{path}: the archive cannot be unpacked ({error}); fetch it again, or free disk space"
            ) from error
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            items = archive.infolist()
            links = [item.filename for item in items if stat.S_ISLNK(item.external_attr >> 16)]
            _check_members(path, [item.filename for item in items], links, sum(item.file_size for item in items))
            archive.extractall(folder)  # noqa: S202  (members checked above)
        return
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        links = [member.name for member in members if not (member.isfile() or member.isdir())]
        _check_members(path, [member.name for member in members], links, sum(member.size for member in members))
        for member in members:
            _write_member(archive, member, folder / member.name)


def _write_member(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    """Write a file or folder with this user's own rights; Python before 3.11.4 has no filter that does it."""
    if member.isdir():
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = archive.extractfile(member)
    assert content is not None, "a file"
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _check_members(path: Path, names: Sequence[str], links: Sequence[str], size: int) -> None:
    if links:
        raise UserError(f"{path}: member {links[0]!r} is a link or a device; only files and folders are read")
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if size > free:
        raise UserError(
            f"{path}: unpacks to {size / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free in {tempfile.gettempdir()}; "
            "free some, or set TMPDIR"
        )
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
            raise UserError(
                f"{path}: member {name!r} would be written outside the target directory; the archive is refused"
            )
