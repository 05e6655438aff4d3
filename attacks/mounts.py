"""File systems of a campaign's own, which nobody else sees and which go with the process that mounted them."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from attacks.campaign import NotHereError

CLONE_NEWNS = 0x20000  # of Linux's unshare
UNMOUNT_SECONDS = 30


def keep_mounts_private() -> None:
    """Let no other process see what this one and its children mount from here on.

    Raises:
        NotHereError: this user may not mount.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS):
        raise NotHereError(f"this user may not mount file systems ({os.strerror(ctypes.get_errno())})")
    call("mount", "--make-rprivate", "/")


@contextlib.contextmanager
def mounted(what: str, place: Path, *options: str) -> Iterator[None]:
    """Mount ``what`` on the folder ``place`` as long as the block lasts.

    Raises:
        NotHereError: this user may not, or there is no such program.
    """
    call("mount", *options, what, str(place))
    try:
        yield
    finally:
        deadline = time.monotonic() + UNMOUNT_SECONDS
        while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{place} is still in use")
            time.sleep(0.1)


def call(*words: str) -> None:
    """Run a program.

    Raises:
        NotHereError: it fails, or there is none of that name.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotHereError(f"no program {words[0]}") from error
    if done.returncode:
        raise NotHereError(f"this user may not mount file systems ({done.stderr.strip()})")
