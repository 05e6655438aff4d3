"""How much memory a process holds, and the most that this one has held while something ran."""

import contextlib
from pathlib import Path
from typing import NamedTuple

SELF = Path("/proc/self")
START_AGAIN = "5"
"""Written to clear_refs: the peak counts from here on (proc_pid_clear_refs(5))."""


class Peak(NamedTuple):
    """How much a process held as something began."""

    before: int
    """MiB."""

    def grown(self) -> int:
        """Return by how many MiB this process has grown at its largest since."""
        return int(largest_mib()) - self.before


def peak_from_here() -> Peak:
    """Begin to watch what this process holds; another call begins anew."""
    with contextlib.suppress(OSError):  # without the right to do so the largest of earlier counts as well
        (SELF / "clear_refs").write_text(START_AGAIN)
    return Peak(int(resident_mib()))


def resident_mib(process: int | str = "self") -> float:
    """Return the MiB of memory that the process with this number holds now."""
    return _mib("VmRSS", process)


def largest_mib(process: int | str = "self") -> float:
    """Return the most MiB of memory that the process with this number ever held; getrusage counts its parent's too."""
    return _mib("VmHWM", process)


def _mib(field: str, process: int | str) -> float:
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 2**10
