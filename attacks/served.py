"""A server to attack, and somebody who asks for its health meanwhile."""

import contextlib
import http.client
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from attacks.campaign import Outcome
from attacks.malformed import Target
from attacks.memory import resident_mib
from workbench.serving_helpers import NAME, SIZE, ServerProcess, make_package, serving

SLOW_HEALTH = 5.0
"""Seconds after which an answer on health counts as missing; a host may be busy with other things."""
MAX_BYTES = 250_000
MAX_JSON = 100_000
TIMEOUT = 2
OPTIONS = (
    *("--timeout", str(TIMEOUT), "--max-bytes", str(MAX_BYTES), "--max-json-bytes", str(MAX_JSON)),
    *("--max-connections", "64", "--max-queue", "8", "--workers", "1"),
)
MOST_GROWTH = 64
"""MiB by which a server may grow while it is attacked: queue and bodies at their limits, and what libraries keep."""


class Attacked:
    """A server under attack."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.target = Target(NAME, (3, SIZE, SIZE), 32, MAX_BYTES)
        self.at_rest = resident_mib(server.process.pid)

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of HTTP."""
        host, _, port = self.server.http.rpartition(":")
        return host, int(port)

    def health(self) -> str:
        """Ask for health over a new connection; return what is wrong with the answer, empty if nothing is."""
        started = time.monotonic()
        connection = http.client.HTTPConnection(*self.place, timeout=SLOW_HEALTH)
        try:
            connection.request("GET", "/v2/health/ready")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"health: {type(error).__name__} {error} after {time.monotonic() - started:.1f} s"
        finally:
            connection.close()
        return "" if status == 200 else f"health: {status}"

    def judged(self, kind: str, fault: str, seen: str = "") -> Outcome:
        """Return what became of a case: ``fault`` was wrong with its answer, ``seen`` with health meanwhile."""
        log = "".join(self.server.lines)
        self.server.lines.clear()
        faults = [fault, seen, self.health()]
        if "Traceback" in log or '"outcome": "internal"' in log:
            faults.append(f"log: {log[-2000:]}")
        grown = resident_mib(self.server.process.pid) - self.at_rest
        if grown > MOST_GROWTH:
            faults.append(f"memory grew by {grown:.1f} MiB")
        detail = "; ".join(each for each in faults if each)
        return Outcome(kind, "broke" if detail else "held", detail)

    @contextlib.contextmanager
    def observed(self) -> Iterator[list[str]]:
        """Ask for health all the while; yield a list to which each missing answer is added."""
        missing: list[str] = []
        ending = threading.Event()

        def watch() -> None:
            while not ending.wait(0.05):
                if wrong := self.health():
                    missing.append(wrong)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield missing
        finally:
            ending.set()
            watcher.join()


@contextlib.contextmanager
def attacked() -> Iterator[Attacked]:
    """Start a server of a small package and yield it."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = stack.enter_context(serving(make_package(Path(folder, "package")), *OPTIONS))
        yield Attacked(server)
        if code := server.stop():
            raise RuntimeError(f"the server ended with {code}: {server.lines}")
