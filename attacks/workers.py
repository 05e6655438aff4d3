"""Processes that try cases one after another; where one hangs or dies, that is an outcome, and another takes over."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from attacks.campaign import Campaign, NotHereError, Outcome, case_generator

OPENING_SECONDS = 1800
"""That a campaign may take to make what its cases share, such as a run of the whole chain."""


class Worker:
    """A process that has opened a campaign, and the case that it is at."""

    def __init__(self, name: str, campaign: Campaign, seed: int, scratch: Path) -> None:
        self._name, self._campaign, self._seed, self._scratch = name, campaign, seed, scratch
        self.case: int | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        arguments = (other, self._name, self._campaign, self._seed, self._scratch)
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        other.close()
        if not self.connection.poll(OPENING_SECONDS):
            self.stop()
            raise TimeoutError(f"{self._name}: not ready after {OPENING_SECONDS} s")
        try:
            ready = self.connection.recv()
        except EOFError:
            self.stop()
            raise RuntimeError(f"{self._name}: its process ended as it began; what it printed says why") from None
        if isinstance(ready, NotHereError):
            self.stop()
            raise ready

    def begin(self, case: int) -> None:
        """Try ``case``."""
        self.case = case
        self._deadline = time.monotonic() + self._campaign.seconds
        self.connection.send(case)

    @property
    def seconds_left(self) -> float:
        """Until the case at work counts as one that hangs."""
        return max(0.0, self._deadline - time.monotonic())

    def outcome(self) -> Outcome | None:
        """Return what became of the case at work, None while it goes on; a dead or hanging process is replaced."""
        if self.connection.poll():
            try:
                return Outcome(*self.connection.recv())
            except (EOFError, ConnectionResetError):
                return self._replaced(f"its process ended with {self._ended()}")
        if self.seconds_left:
            return None
        return self._replaced(f"no end after {self._campaign.seconds:g} s")

    def _ended(self) -> str:
        self._process.join(5)
        return f"exit code {self._process.exitcode}"

    def _replaced(self, why: str) -> Outcome:
        self.stop()
        self._start()
        return Outcome("a hang or a dead process", "broke", why)

    def stop(self) -> None:
        """End the process and all that it has started; it gets a moment to end what its campaign opened."""
        self.connection.close()
        self._process.join(5 if self.case is None else 0)
        if self._process.pid is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                self._process.kill()
        self._process.join()
        self.case = None


def outcomes(
    name: str, campaign: Campaign, cases: Iterable[int], *, seed: int, jobs: int, until: Callable[[], bool]
) -> Iterator[tuple[int, Outcome]]:
    """Yield each case with its outcome, in the order in which they end; begin none after ``until`` says so.

    Raises:
        NotHereError: the host lacks what the campaign needs.
    """
    left = iter(cases)
    scratch = Path(tempfile.mkdtemp(prefix=f"attack-{name}-"))
    workers: list[Worker] = []

    def begun(worker: Worker) -> bool:
        case = None if until() else next(left, None)
        worker.case = None
        if case is not None:
            worker.begin(case)
        return case is not None

    try:
        for number in range(1 if campaign.alone else jobs):
            (scratch / str(number)).mkdir()
            workers.append(Worker(name, campaign, seed, scratch / str(number)))
        busy = [worker for worker in workers if begun(worker)]
        while busy:
            wait([worker.connection for worker in busy], min(worker.seconds_left for worker in busy) + 0.01)
            for worker in list(busy):
                case, outcome = worker.case, worker.outcome()
                if case is not None and outcome is not None:
                    yield case, outcome
                    if not begun(worker):
                        busy.remove(worker)
    finally:
        for worker in workers:
            worker.stop()
        shutil.rmtree(scratch, ignore_errors=True)


def _serve(connection: "Connection[Any, Any]", name: str, campaign: Campaign, seed: int, scratch: Path) -> None:
    """Open the campaign and answer the numbers of cases with outcomes until the connection closes."""
    os.setsid()  # what a case starts ends with this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    tempfile.tempdir = str(scratch)
    os.environ["TMPDIR"] = str(scratch)
    try:
        with campaign.open() as attack:
            connection.send("ready")
            while True:
                try:
                    case = connection.recv()
                except EOFError:
                    return
                folder = Path(tempfile.mkdtemp(prefix=f"case-{case}-"))
                try:
                    outcome = attack(case_generator(name, seed, case), folder)
                except Exception:  # noqa: BLE001  (any is what is looked for)
                    outcome = Outcome("an exception that nothing caught", "broke", traceback.format_exc()[-3000:])
                shutil.rmtree(folder, ignore_errors=True)
                connection.send(tuple(outcome))
    except NotHereError as error:
        connection.send(error)
