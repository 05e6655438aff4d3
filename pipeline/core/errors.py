"""Errors that end a stage with one line instead of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.printable import printable

if TYPE_CHECKING:
    from typing import Self


class UserError(ValueError):
    """The user's input or parameters are wrong: what was got, what is allowed, how to fix it. Exit code 2."""


class GateError(RuntimeError):
    """The input was right, but a result is not good enough to go on (parity, accuracy, divergence). Exit code 1."""


class DivergedError(GateError):
    """A training has led to numbers that are not finite, and would again with the same parameters. Exit code 1."""


class BusyError(RuntimeError):
    """Another process is at the same work. Exit code 1."""


class LostProcessError(RuntimeError):
    """A process that this one started ended before its work was done. Exit code 1."""

    @classmethod
    def while_doing(cls, work: str, exit_code: int | None = None) -> Self:
        """Return the error of a process that ``work``; ``exit_code`` is as ``multiprocessing`` gives it, if known."""
        how = "was killed" if exit_code is None else f"ended with exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            how = f"was ended by signal {-exit_code} ({signal.strsignal(-exit_code)})"
        return cls(f"a process that {work} {how}; where memory ran short, give it more or ask less, then run it again")


class SaidError(RuntimeError):
    """A process that this one started failed, and printed why. Exit code: that of the process."""

    def __init__(self, fault: str, exit_code: int) -> None:
        super().__init__(fault)
        self.exit_code = exit_code


class SaidDivergedError(SaidError, DivergedError):
    """A training diverged in a process that this one started, which printed so. Exit code: that of the process."""


class LostHostError(RuntimeError):
    """Another host that trains with this one did not come, cannot take part, or went. Exit code 1."""


class LostPeerError(RuntimeError):
    """Another process of the same training is gone; whoever started both says which and why. Exit code 1."""


@contextlib.contextmanager
def user_error(key: str, *, advice: str = "") -> Iterator[None]:
    """Turn a ValueError of a library into a UserError that names the parameter ``key`` it came from.

    Args:
        advice: how to go on, where the library's words do not say it.
    """
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError("; ".join(part for part in (f"{key}: {error}", advice) if part)) from error


@contextlib.contextmanager
def readable_file(place: object) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file, or ``place`` where the error names none."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{printable(error.filename or place)}: cannot be read ({error.strerror or printable(error)})"
        ) from error


@contextlib.contextmanager
def written_file(place: Path, *, work: Path | None = None) -> Iterator[None]:
    """Let an error of the system name ``place``, which is being written, where it names no path or one of ``work``.

    Libraries in Rust say such an error in their own way; it becomes an OSError as well.

    Args:
        work: the temporary file or folder in which it is written.
    """
    try:
        yield
    except OSError as error:
        named = [Path(os.fsdecode(name)) for name in (error.filename, error.filename2) if name is not None]
        if (not named and error.errno != errno.ENOENT) or (
            work is not None and any(path.is_relative_to(work) for path in named)
        ):
            error.filename = str(place)
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(place)) from error


_CURES = {
    errno.ENOENT: "set TMPDIR to a folder that can be written",
    errno.EACCES: "this user (uid {uid}) may not; change the rights there, or choose another place",
    errno.EPERM: "this user (uid {uid}) may not; change the rights there, or choose another place",
    errno.EROFS: "mount it writable, or choose another place",
    errno.ENOLCK: "file locks do not work there (NFS without its lock service?); choose a place where they do",
    errno.EFBIG: "files may not be so large there; see ulimit -f",
    errno.EDQUOT: "the quota is used up; free some, or choose another place",
    errno.EMFILE: "see ulimit -n",
    errno.ENFILE: "the whole system has too many open files",
    errno.EIO: "the disk or the network storage has a fault",
    errno.ESTALE: "the network storage has lost it; mount it again",
}
AGAIN = "then run the same command again"


def system_fault(error: OSError) -> str | None:
    """Return the line on an error of the system that the user can cure, or None where it is none.

    It has the path, the cause, the free space where that has run out, and what to do.
    """
    if isinstance(error, ConnectionError) or (error.filename is None and error.errno not in _CURES):
        return None  # BrokenPipeError: nobody reads what is printed
    path = "this process" if error.filename is None else os.fsdecode(error.filename)
    cure = _CURES.get(error.errno or 0, "").format(uid=os.geteuid())
    if error.errno == errno.ENOENT and error.filename is not None:  # another folder than that for temporary files
        cure = ""
    if error.errno == errno.ENOSPC:
        cure = f"{_free_space(Path(path))}; free some, or choose another place"
    return "; ".join(part for part in (f"{path}: {error.strerror}", cure, AGAIN if cure else "") if part)


def _free_space(path: Path) -> str:
    """Return what is left on the file system of ``path``, which need not exist."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    facts = os.statvfs(there)
    if facts.f_files and not facts.f_favail:
        return "no inode is left there for another file"
    return f"{facts.f_bavail * facts.f_frsize / 2**20:.1f} MiB are free there"


@contextlib.contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn a package that is not installed into an error that names what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"the Python package {error.name} is not installed; {extra}") from error
