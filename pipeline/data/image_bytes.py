"""The bytes of an image file, read without trust in what lies at its path."""

import os
import stat
import zlib
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import UserError, readable_file
from pipeline.data.image_kinds import HEAD, image_format

LARGEST = 2**30
"""Bytes of an image file; those of 80 megapixels with three colours of 16 bits have half of that."""


CHANGED = "has changed since prepare_data has read it; run that again (dvc repro --force prepare_data), then dvc repro"


class State(NamedTuple):
    """What tells one state of a file from another, whatever its times are."""

    size: int
    """Bytes."""
    sum: int
    """CRC-32 of what it holds: a sixtieth of the time that decoding takes."""

    @classmethod
    def of(cls, data: bytes) -> "State":
        """Return the state of a file that holds ``data``."""
        return cls(len(data), zlib.crc32(data))


def read_image_bytes(path: str | Path, name: str, *, known: State | None = None) -> bytes:
    """Return what the image file ``path`` holds; of a file that is no image, its first bytes alone.

    Args:
        name: what messages call it.
        known: as it was when it was read before; None: it may be in any state.

    Raises:
        UserError: it cannot be read, is no plain file, too large, or no longer as it was ``known``.
    """
    with readable_file(name), open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"{name}: is no plain file; remove it")
        if known is not None and found.st_size != known.size:
            raise UserError(f"{name}: {CHANGED}")
        if found.st_size > LARGEST:
            size, allowed = found.st_size / 2**30, LARGEST / 2**30
            raise UserError(f"{name}: has {size:.1f} GiB, allowed is {allowed:g}; scale it down or remove it")
        head = file.read(HEAD)
        data = head if image_format(head) is None else head + file.read()
    if known is not None and State.of(data) != known:
        raise UserError(f"{name}: {CHANGED}")
    return data


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as ``os.open`` does; a pipe does not block."""
    return os.open(path, flags | os.O_NONBLOCK)
