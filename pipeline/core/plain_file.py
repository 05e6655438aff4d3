"""Files from outside: plain ones alone are read, none waits, and how large one may be is known before it is read."""

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pipeline.core.errors import UserError, readable_file
from pipeline.core.printable import printable

BLOCK = 2**20


@contextlib.contextmanager
def plain_file(path: str | Path, *, most: int, name: object = None, links: bool = False) -> Iterator[BinaryIO]:
    """Yield the file ``path``, open for reading.

    Args:
        most: bytes that it may have.
        name: what messages call it, where that is not its path.
        links: whether it may be a link to a plain file.

    Raises:
        UserError: it cannot be read, is no plain file, or has more bytes.
    """

    def opener(path: str, flags: int) -> int:
        return os.open(path, flags | os.O_NONBLOCK | (0 if links else os.O_NOFOLLOW))  # a pipe does not block

    shown = printable(path if name is None else name)
    with readable_file(shown):
        try:
            file = open(path, "rb", opener=opener)  # noqa: SIM115  (closed below)
        except (ValueError, OSError) as error:
            if isinstance(error, ValueError):  # a NUL in the name
                raise UserError(f"{shown}: cannot be read ({error})") from error
            if error.errno == errno.ELOOP and os.path.islink(path) and not links:  # noqa: PTH114  (path may be a text)
                raise UserError(f"{shown}: a link; give a copy of what it leads to (cp -rL)") from error
            if error.errno in {errno.ENXIO, errno.EISDIR}:  # a socket, a folder
                raise UserError(f"{shown}: is no plain file; remove it") from error
            error.filename = None if name is not None else error.filename
            raise
    with file, readable_file(shown):
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{shown}: is no plain file; remove it")
        if found.st_size > most:
            raise UserError(f"{shown}: has {_size(found.st_size)}, allowed is {_size(most)}")
        yield file


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:,.4g} {unit}"
    return f"{count} bytes"


def read_plain_file(path: Path, *, most: int, links: bool = False) -> bytes:
    """Return what the plain file ``path`` of at most ``most`` bytes holds; raises as ``plain_file``."""
    with plain_file(path, most=most, links=links) as file:
        data = file.read(most + 1)
    if len(data) > most:  # it has grown since, or does not say its size
        raise UserError(f"{printable(path)}: has more than {_size(most)}, which are allowed")
    return data


def sum_of_plain_file(path: Path, *, most: int) -> str:
    """Return the hexadecimal SHA-256 of the plain file ``path`` of at most ``most`` bytes; raises as ``plain_file``."""
    digest, left = hashlib.sha256(), most
    with plain_file(path, most=most) as file:
        while left >= 0 and (block := file.read(BLOCK)):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
