"""How many trainings run well side by side on this host: by its cores, or, on a GPU, by trying.

What is tried are the first epochs of trainings that are wanted anyway, which go on from there afterwards. The GPU's
part has not run on a GPU yet.
"""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from pipeline.comparison.plan import Trial
from pipeline.comparison.runner import POLL_SECONDS, start_run
from pipeline.core.files import read_csv
from pipeline.core.processes import num_cores

logger = logging.getLogger(__name__)

EPOCHS = 2
"""So many epochs of each training are timed; the one before, in which networks are compiled, is not."""
FASTER = 1.1
"""Times the speed that twice as many trainings must reach together to be worth it."""
USABLE = 0.9
"""Share of the free memory that trainings may take together."""


class Trying(NamedTuple):
    """What some trainings side by side showed."""

    speed: float
    """Epochs a second of all together; 0: one has failed."""
    memory: int
    """Bytes of the GPU that they took at most."""


def choose_jobs(waiting: Sequence[Trial]) -> int:
    """Return how many of ``waiting`` should train at a time."""
    if not waiting:
        return 1
    base = waiting[0].settings.base
    on_gpu = base.device.startswith("cuda") or (base.device == "auto" and torch.cuda.is_available())
    if not on_gpu:
        return max(1, num_cores() // (base.num_threads or num_cores()))
    ordered = sorted(waiting, key=lambda trial: trial.method != waiting[0].method)  # alike ones first
    device = torch.device(base.device if base.device != "auto" else "cuda")
    limit = min(len(ordered), num_cores())
    return by_trying(lambda jobs: try_out(ordered[:jobs], device), limit=limit, free=free_memory(device))


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a GPU."""
    return int(torch.cuda.mem_get_info(device)[0])


def by_trying(tried: Callable[[int], Trying], *, limit: int, free: int) -> int:
    """Return the number of trainings, doubled from 1 as long as they fit and are faster together.

    Args:
        tried: returns what so many trainings side by side show.
        limit: more are not tried.
        free: bytes of memory that they share.
    """
    jobs, found = 1, tried(1)
    fitting = min(limit, int(USABLE * free / max(found.memory, 1)))
    logger.info("one training: %.3g epochs a second, %.2f GiB", found.speed, found.memory / 2**30)
    while 2 * jobs <= fitting:
        doubled = tried(2 * jobs)
        logger.info("%d trainings side by side: %.3g epochs a second together", 2 * jobs, doubled.speed)
        if doubled.speed < FASTER * found.speed:
            break
        jobs, found = 2 * jobs, doubled
    return jobs


def try_out(trials: Sequence[Trial], device: torch.device) -> Trying:
    """Train all of ``trials`` at once for some epochs, and stop them; they go on from there when they are run."""
    before = free_memory(device) if device.type == "cuda" else 0
    least, watched = before, [_Watched(trial) for trial in trials]
    running = [start_run(trial) for trial in trials]
    try:
        while not all(one.is_over() for one in watched):
            time.sleep(POLL_SECONDS)
            least = min(least, free_memory(device)) if device.type == "cuda" else 0
            codes = [one.process.poll() for one in running]
            if any(code not in (None, 0) for code in codes):
                return Trying(0.0, before - least)
            if any(code == 0 for code in codes):
                break  # a short one has ended
    finally:
        for one in running:
            one.stop()
    return Trying(sum(one.speed() for one in watched), before - least)


class _Watched:
    """The epochs of a training, as they appear in its history."""

    def __init__(self, trial: Trial) -> None:
        self.path: Path = trial.folder / "history.csv"
        self.path.unlink(missing_ok=True)
        self.seen: list[tuple[float, int]] = []
        """When the history changed, and how many epochs it had."""

    def is_over(self) -> bool:
        """Look at the history; return whether enough epochs have been timed."""
        epochs = len(read_csv(self.path)) if self.path.exists() else 0
        if epochs > (self.seen[-1][1] if self.seen else 0):
            self.seen.append((time.perf_counter(), epochs))
        return bool(self.seen) and self.seen[-1][1] - self._first()[1] >= EPOCHS

    def _first(self) -> tuple[float, int]:
        """Return the first change after that of a training that goes on, which shows what there was."""
        return self.seen[min(1, len(self.seen) - 1)]

    def speed(self) -> float:
        """Return epochs a second since the first one ended; 0 where nothing was seen."""
        if not self.seen:
            return 0.0
        (began, first), (ended, last) = self._first(), self.seen[-1]
        return (last - first) / (ended - began) if ended > began else 0.0
