"""Processes that do not outlive the one that started them."""

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def num_cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0))


def end_with_parent(parent: int | None = None) -> None:
    """Let the system end this process when the one that started it ends, however that happens.

    ``parent`` is the process number of the latter where it is known: if it has ended already, this one ends at once.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
