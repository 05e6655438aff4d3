"""Temporary folders in a known place, which the next run clears where one was killed."""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

UNPACKED = ".cache/unpacked"
"""In the project: archives, unpacked for as long as they are read."""


def own_place() -> Path:
    """Return this user's place outside of any project, below the system's folder for temporary files.

    Raises:
        PermissionError: something of another user, or no folder, has that name.
    """
    place = Path(tempfile.gettempdir()) / f"fmkt-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        place.mkdir(mode=0o700)
    about = place.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(place))
    return place


@contextlib.contextmanager
def scratch_folder(place: Path) -> Iterator[Path]:
    """Yield a new folder in ``place``, removed when the block ends; what killed runs left there goes first.

    Each folder has a lock file beside it, which the system releases when its process ends, however that ends.
    """
    place.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        with _locked(place / ".lock", wait=True):  # nobody clears between the creation of a lock file and its locking
            _clear(place)
            folder = Path(tempfile.mkdtemp(prefix="unpacked-", dir=place))
            stack.enter_context(_locked(_lock_of(folder), wait=False))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _lock_of(folder).unlink(missing_ok=True)


def clear_scratch(place: Path) -> None:
    """Remove the folders in ``place`` whose processes have ended."""
    if place.is_dir():
        with _locked(place / ".lock", wait=True):
            _clear(place)


def _clear(place: Path) -> None:
    for folder in place.iterdir():
        if folder.is_dir():
            with contextlib.suppress(BlockingIOError), _locked(_lock_of(folder), wait=False):
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock on the file ``path``; raises BlockingIOError where another process does and ``wait`` is false."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(lock)
