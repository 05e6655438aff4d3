"""What two hosts tell each other: JSON, a message a line, over a TCP connection that shows whether the other is alive.

Nothing that comes in is unpickled or run: a line is bounded, parsed as JSON, and read as one of the messages below.
"""

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, fields
from typing import Annotated, Any

from pipeline.core.errors import LostHostError
from pipeline.core.plain import Part, at_least, at_most, read_plain
from pipeline.core.strict_json import parse_json

VERSION = 2
"""Of the messages; hosts of another understand each other no further than that."""
LONGEST_LINE = 2**22
MOST = 1024
"""Hosts of a training, and processes of one."""
BEAT_SECONDS = 1.0
"""Between signs of life."""
CLOSED = "closed its connection: it was ended"


@dataclass(frozen=True, kw_only=True)
class Training(Part):
    """From the head, at first: what it trains, and what must be the same on each host."""

    version: int
    silence_seconds: Annotated[float, at_least(1), at_most(3600)]
    stage: str
    num_hosts: int
    num_processes: int
    code: str
    """Digest of the code that the stage runs."""
    libraries: dict[str, Any]
    """From each library that computes to its version, or null."""
    params: dict[str, Any]
    """From the dotted keys that the stage declares to their values."""
    files: dict[str, Any]
    """From each file, as ``agreement.files_of`` names it, to its SHA-256."""
    facts: dict[str, Any]
    """What the stage reads of the probe's findings."""


@dataclass(frozen=True, kw_only=True)
class Dismissal(Part):
    """From the head, at first: there will be no more trainings."""

    version: int


@dataclass(frozen=True, kw_only=True)
class Coming(Part):
    """From a host, to a training, at once: that it is there, and will answer when it has prepared and compared."""

    host: str


@dataclass(frozen=True, kw_only=True)
class Answer(Part):
    """From a host, to a training: that it takes part, or why not."""

    processes: Annotated[int, at_least(1), at_most(MOST)] | None
    """How many it runs; None leaves that to the head."""
    fault: str | None


@dataclass(frozen=True, kw_only=True)
class Start(Part):
    """From the head, when all are there: what this host's agent has to know."""

    rank: Annotated[int, at_least(0), at_most(MOST)]
    """Of the host; the head is 0."""
    processes: Annotated[int, at_least(1), at_most(MOST)]
    address: str
    port: Annotated[int, at_least(1), at_most(65535)]
    run: str


@dataclass(frozen=True, kw_only=True)
class Ended(Part):
    """From a host: how its processes ended. From the head: how the training did, which is the last that it says."""

    fault: str | None
    """Why it failed; None where it did not."""
    weight: int = 0
    """How much the fault explains: see ``outcome.Outcome``."""


KINDS: dict[str, type[Part]] = {
    "training": Training,
    "dismissal": Dismissal,
    "coming": Coming,
    "answer": Answer,
    "start": Start,
    "ended": Ended,
}


class Channel:
    """A connection to another host; both sides of it send signs of life.

    Args:
        silence: seconds without any after which the other one is lost.
    """

    def __init__(self, connection: socket.socket, *, silence: float) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.be_patient(silence)
        self._lines = connection.makefile("rb")
        threading.Thread(target=self._beat, daemon=True).start()

    def be_patient(self, silence: float) -> None:
        """Let the other one be silent for ``silence`` seconds from here on."""
        self.silence = silence
        self._connection.settimeout(silence)

    def send(self, message: Part) -> None:
        """Send ``message``; that the other one is gone is found by receiving."""
        self._send_line(encoded(message))

    def receive(self) -> Part:
        """Return the next message, signs of life left out.

        Raises:
            LostHostError: the other one is gone or silent, or says what none of this pipeline does; why, in words that
                go on after its name.
        """
        while True:
            try:
                line = self._lines.readline(LONGEST_LINE)
            except TimeoutError as error:
                raise LostHostError(f"was not heard of for {self.silence:g} seconds") from error
            except (ConnectionError, ValueError) as error:  # ValueError: closed here
                raise LostHostError(CLOSED) from error
            except OSError as error:
                raise LostHostError(f"was cut off from the network ({error.strerror or error})") from error
            if not line:
                raise LostHostError(CLOSED)
            message = _read(line)
            if message is not None:
                return message

    def hang_up(self) -> None:
        """Say nothing more; what was said arrives, and the other one may go on."""
        self._closed.set()
        with self._lock, contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End the connection."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self._send_line(b"{}\n")

    def _send_line(self, line: bytes) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(line)


def encoded(message: Part) -> bytes:
    """Return the line that ``message`` is."""
    kind = next(name for name, known in KINDS.items() if type(message) is known)
    content = {one.name: getattr(message, one.name) for one in fields(message)}  # type: ignore[arg-type]
    return json.dumps({kind: content}).encode() + b"\n"


def _read(line: bytes) -> Part | None:
    try:
        content = parse_json(line)
        if not content:
            return None
        ((kind, values),) = content.items()
        return read_plain(KINDS[kind], values)
    except (KeyError, ValueError) as error:
        raise LostHostError("says what no host of this pipeline does") from error
