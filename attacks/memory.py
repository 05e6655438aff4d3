"""The most memory that this process has held while something ran."""

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
        return _mib("VmHWM") - self.before


def peak_from_here() -> Peak:
    """Begin to watch what this process holds; another call begins anew."""
    with contextlib.suppress(OSError):  # without the right to do so the largest of earlier counts as well
        (SELF / "clear_refs").write_text(START_AGAIN)
    return Peak(_mib("VmRSS"))


def _mib(field: str) -> int:
    line = next(line for line in (SELF / "status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) // 2**10
