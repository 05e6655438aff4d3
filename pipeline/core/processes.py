"""Processes that do not outlive the one that started them, and how many of them have a CPU core to run on."""

import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1  # of Linux's prctl
UNLIMITED = 2**60
"""Bytes from which on a limit is none: version 1 of control groups says so with a number."""


def num_cores(root: Path = Path("/")) -> int:
    """Return how many CPU cores this process may use, at least 1: those it is bound to, within a container's quota.

    ``root`` is where the files of the system lie.
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(int(quota) for quota in _cpu_quotas(root))]))


def memory_limit(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that control groups leave this process; None where they set no limit."""
    limits = [
        int(text)
        for group, is_v1 in _groups(root, "memory")
        if (text := "".join(_lines(group / ("memory.limit_in_bytes" if is_v1 else "memory.max")))).isdecimal()
    ]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU cores that each control group above this process may keep busy, of versions 2 and 1."""
    for group, is_v1 in _groups(root, "cpu"):
        quota, period = _quota_v1(group) if is_v1 else _quota_v2(group)
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) / int(period)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, bool]]:
    """Yield the folder of each control group above this process, and whether it is one of version 1."""
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, own = line.split(":", 2)
        is_v1 = number != "0"
        if is_v1 and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if is_v1 else "")
        group = top / own.lstrip("/")
        while group.is_relative_to(top):
            yield group, is_v1
            group = group.parent


def _quota_v1(group: Path) -> tuple[str, str]:
    quota, period = ("".join(_lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return quota, period


def _quota_v2(group: Path) -> tuple[str, str]:
    quota, _, period = "".join(_lines(group / "cpu.max")).partition(" ")
    return quota, period


def _lines(path: Path) -> list[str]:
    """Return the lines of ``path``; none where the system has no such file, or shows it to nobody."""
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def end_with_parent(parent: int | None = None) -> None:
    """Let the system end this process when the one that started it ends, however that happens.

    ``parent`` is the process number of the latter where it is known: if it has ended already, this one ends at once.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        os._exit(1)
