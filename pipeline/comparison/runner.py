"""Runs in processes of their own, several side by side."""

import json
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.comparison.plan import Command, Run
from pipeline.comparison.worker import DIVERGED
from pipeline.core.errors import GateError

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.2
R = TypeVar("R", bound=Run)
LOG = "log.txt"


@dataclass
class Running(Generic[R]):
    """A run at work."""

    run: R
    process: subprocess.Popen[bytes]
    fingerprint: str
    """That of the run before it started: what changes meanwhile is not in its result."""
    started: float = field(default_factory=time.perf_counter)

    def seconds(self) -> float:
        """Return how long it has been at work."""
        return time.perf_counter() - self.started

    def stop(self) -> None:
        """End it; what it has trained so far is kept in its checkpoints."""
        self.process.terminate()
        self.process.wait()


def run_all(
    runs: Sequence[R],
    *,
    jobs: int,
    on_done: Callable[[R], None] = lambda _: None,
    is_wanted: Callable[[R, Sequence[Running[R]]], bool] = lambda *_: True,
) -> None:
    """Bring all ``runs`` to their end, at most ``jobs`` at a time; interrupted or failed ones can be run again.

    Args:
        on_done: called with each that is done, as soon as it is.
        is_wanted: called with each before it starts, and with those at work; one that is not wanted is left out.

    Raises:
        GateError: some failed; names their logs. The others have run to their end.
    """
    waiting = list(runs)
    done, failed = 0, list[Run]()
    started = time.perf_counter()
    at_work: list[Running[R]] = []
    try:
        while waiting or at_work:
            while waiting and len(at_work) < jobs:
                run = waiting.pop(0)
                if is_wanted(run, at_work):
                    at_work.append(start_run(run))
                    logger.info("%s: started; its log is %s", run.name, run.folder / LOG)
            time.sleep(POLL_SECONDS)
            for item in [item for item in at_work if item.process.poll() is not None]:
                at_work.remove(item)
                done += 1
                to_do = len(waiting) + len(at_work)
                left = (time.perf_counter() - started) / done * to_do
                logger.info("%s, %d of %d, about %.0f s left", _end(item, failed), done, done + to_do, left)
                if item.run not in failed:
                    on_done(item.run)
    finally:
        for item in at_work:
            item.stop()
    if failed:
        logs = ", ".join(str(run.folder / LOG) for run in failed)
        raise GateError(f"{len(failed)} of {done} runs failed; see {logs}, then run the same command again")


def run_command(command: Command) -> int:
    """Run one stage command on this terminal and return its exit code."""
    return subprocess.run([sys.executable, "-m", *command], check=False).returncode  # noqa: S603


def start_run(run: R) -> Running[R]:
    """Start ``run`` in a process of its own."""
    run.folder.mkdir(parents=True, exist_ok=True)
    run.done_file.unlink(missing_ok=True)
    fingerprint = run.fingerprint()
    with (run.folder / LOG).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.comparison.worker"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=Path.cwd(),
        )
    assert process.stdin is not None
    process.stdin.write(f"{json.dumps(run.commands)}\n".encode())
    process.stdin.flush()  # stays open: the worker ends when it closes
    return Running(run, process, fingerprint)


def _end(item: Running[R], failed: list[Run]) -> str:
    """Take note of a run that ended; return one line about it."""
    run, code = item.run, item.process.returncode
    if code == 0:
        run.mark_done(item.fingerprint, item.seconds())
        return f"{run.name}: done in {item.seconds():.0f} s"
    lines = (run.folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = [line for line in lines if line.startswith("error: ")]  # several processes are followed by torchrun's words
    last = (said or lines or ["no output"])[-1] if code > 0 else f"ended by signal {-code} ({signal.strsignal(-code)})"
    if code == DIVERGED and run.may_diverge():
        run.mark_done(item.fingerprint, item.seconds(), diverged=last.removeprefix("error: "))
        return f"{run.name}: diverged after {item.seconds():.0f} s, so that these values are not chosen"
    failed.append(run)
    return f"{run.name}: FAILED ({last})"
