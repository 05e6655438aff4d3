"""A directory, or an archive unpacked for as long as it is read."""

import contextlib
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from pipeline.errors import UserError

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")


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
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, LZMAError, zlib.error, OSError) as error:
            raise UserError(
                f"{path}: the archive cannot be unpacked ({error}); fetch it again, or free disk space"
            ) from error
        yield Path(folder)


def _unpack(path: Path, folder: Path) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist())
            archive.extractall(folder)  # noqa: S202  (names checked above)
        return
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        _check_names(path, (member.name for member in members))
        for member in members:
            if not (member.isfile() or member.isdir()):
                raise UserError(
                    f"{path}: member {member.name!r} is a link or a device; only files and folders are read"
                )
        archive.extractall(folder, members, filter="data")


def _check_names(path: Path, names: Iterable[str]) -> None:
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or (parts.parts and parts.parts[0].endswith(":")):
            raise UserError(
                f"{path}: member {name!r} would be written outside the target directory; the archive is refused"
            )
