"""How much of the CPU other programs take meanwhile, so that what is foretold from some steps can say so."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import NamedTuple

SHORTEST = 0.3
"""Seconds that have to be seen: the system counts in ticks of a hundredth."""
IDLE = 0.1
"""Share of the cores' time from which on there was room for all."""
LEAST = 0.1
"""Share of the cores' time from which on it is worth a word."""


class _Reading(NamedTuple):
    """Seconds of CPU so far, of the cores that this process may use."""

    ours: float
    busy: float
    idle: float


class OtherPrograms:
    """What other programs have taken of the cores that this process may use, since this was made.

    Args:
        threads: of this process, that compute.
        processes: on this host, this one among them, that do the same.
        root: where the files of the system lie.
    """

    def __init__(self, *, threads: int, processes: int = 1, root: Path = Path("/")) -> None:
        self.threads = threads
        self.processes = processes
        self.root = root
        self.cores = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        self.began = self._read()

    def share(self) -> float:
        """Return the share of the cores' time that they took where that slowed this process, else 0.

        They slowed it where no core was idle and it got less than its threads, and the processes that it started, can
        use. Where the time was too short to tell, or the system counts no such times, it is 0 too.
        """
        ours, busy, idle = (now - before for now, before in zip(self._read(), self.began, strict=True))
        passed = busy + idle
        wanted = self.processes * (self.threads + len(multiprocessing.active_children()))
        usable = passed * min(1.0, wanted / len(self.cores))
        if passed < SHORTEST * len(self.cores) or idle > IDLE * passed or ours > (1 - LEAST) * usable:
            return 0.0
        share = (busy - ours) / passed
        return share if share >= LEAST else 0.0

    def _read(self) -> _Reading:
        tick = os.sysconf("SC_CLK_TCK")
        busy = idle = 0.0
        for line in self._lines("stat"):
            name, *counts = line.split()
            if name in self.cores:
                user, nice, system, resting, waiting, *interrupts_and_stolen = map(int, counts[:8])
                busy += (user + nice + system + sum(interrupts_and_stolen)) / tick
                idle += (resting + waiting) / tick
        ended = os.times()
        ours = time.process_time() + ended.children_user + ended.children_system
        for child in multiprocessing.active_children():
            for line in self._lines(f"{child.pid}/stat"):
                user, system = map(int, line.rpartition(")")[2].split()[11:13])
                ours += (user + system) / tick
        return _Reading(self.processes * ours, busy, idle)

    def _lines(self, name: str) -> list[str]:
        """Return the lines of a file in proc; none where the system has no such file, or the process has ended."""
        try:
            return (self.root / "proc" / name).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []


def beside_others(share: float) -> str:
    """Return what is to be said behind a time that was foretold while other programs took ``share`` of the CPU."""
    return f" while other programs take {share:.0%} of the CPU, less without them" if share else ""


def advice_beside_others(share: float) -> str:
    """Return what helps while other programs take ``share`` of the CPU; nothing where it is done already."""
    if not share or os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        return ""
    return "OMP_WAIT_POLICY=PASSIVE in the environment helps beside them (docs/how-to/training.md)"
