"""What a power cut cannot take: files and folders brought to the disk, and since when all of a file system has been.

A rename reaches the disk on its own time, and the data of a file on another, so that after a power cut a name may stand
over an empty file. What this project writes is brought to the disk before and after its rename
(``pipeline.core.files``). What DVC makes of it afterwards, copies in its cache and in the project, is not: the next
stage to start sees to that.
"""

import contextlib
import ctypes
import errno
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser, Error
from pathlib import Path

DURABLE = ".cache/durable"
"""Its time is that from which on what was written may not be on the disk."""
CHECKPOINTS = ".checkpoints"
"""Folder of all that stages keep for later runs, a folder for each."""
FINISHED = "finished"
"""Marks what a stage that has ended keeps until its outputs are where nothing can take them."""
NO_SUCH_CALL = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""What file systems say that cannot bring a folder to the disk by itself, some network storage among them."""


def project_root() -> Path:
    """Return the root of the DVC repository, or the working directory."""
    return Path(os.environ.get("DVC_ROOT", "."))


def is_run_by_dvc() -> bool:
    """Return whether DVC has started this stage, and moves its outputs when it has ended."""
    return "DVC_STAGE" in os.environ


def sync(path: Path) -> None:
    """Bring the file ``path`` to the disk, or the names in the folder ``path``."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not (error.errno in NO_SUCH_CALL and path.is_dir()):
            error.filename = str(path)
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Bring all that is in ``folder`` to the disk; what its links point to is left to others."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(place))


def make_folder(path: Path) -> None:
    """Make the folder ``path`` and those above it where they are missing, and bring their names to the disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def settle(root: Path) -> None:
    """Bring all that has been written to the file systems of the project ``root`` and of DVC's cache to the disk."""
    began = time.time()
    places = {place.stat().st_dev: place for place in (cache_folder(root), root) if place.is_dir()}
    for place in places.values():
        handle = os.open(place, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(handle):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code), str(place))
        finally:
            os.close(handle)
    with contextlib.suppress(OSError):  # without it, more is looked at after a power cut
        mark = root / DURABLE
        mark.parent.mkdir(exist_ok=True)
        mark.touch()
        os.utime(mark, (began, began))


@contextlib.contextmanager
def settling(root: Path, finished: tuple[Path, ...]) -> Iterator[None]:
    """Settle ``root`` beside what the block does, then remove what is marked as finished in the folders ``finished``.

    Raises:
        OSError: the disk has a fault; at the end of the block.
    """

    def settle_and_remove() -> None:
        settle(root)
        for mark in [mark for folder in finished for mark in folder.glob(f"*/{FINISHED}")]:
            shutil.rmtree(mark.parent, ignore_errors=True)

    with ThreadPoolExecutor(1) as executor:
        settled = executor.submit(settle_and_remove)
        yield
    settled.result()


def settled_until(root: Path) -> float:
    """Return the time up to which all that was written in ``root`` is on the disk; 0 where none is known."""
    try:
        return (root / DURABLE).stat().st_mtime
    except OSError:
        return 0.0


def cache_folder(root: Path) -> Path:
    """Return the folder of DVC's cache of the project ``root``, as the project's own configuration places it."""
    place = "cache"
    for name in ("config", "config.local"):
        config = ConfigParser(interpolation=None)
        with contextlib.suppress(Error, UnicodeDecodeError, OSError):
            config.read(root / ".dvc" / name, encoding="utf-8")
        place = config.get("cache", "dir", fallback=place)
    return root / ".dvc" / place
