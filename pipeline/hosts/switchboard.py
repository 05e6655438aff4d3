"""Who has called a head: it greets each, listens to all at once, and tells them how it ended."""

import contextlib
import logging
import queue
import socket
import threading
import time
from typing import NamedTuple

from pipeline.core.errors import LostHostError
from pipeline.core.printable import printable
from pipeline.hosts.channel import Channel, Dismissal, Ended, Training, encoded

logger = logging.getLogger(__name__)

PARTING_SECONDS = 2.0
"""Given to hosts that have been told how it ended, to close the connection: then what they were told has arrived."""
PAUSE_SECONDS = 0.2
"""After a call that failed."""
LOOK_SECONDS = 0.05
MOST_CONNECTIONS = 64
"""Beside those of the hosts that are waited for."""


class Peer:
    """Another host that has called."""

    def __init__(self, channel: Channel, address: str) -> None:
        self.channel = channel
        self.address = address
        self.processes: int | None = None
        self.name = address

    def introduce(self, host: str) -> None:
        """Take down what the host calls itself."""
        self.name = f"{printable(host)[:64]} ({self.address})"


class Event(NamedTuple):
    """Something that came from another host."""

    peer: Peer
    message: object
    """One of ``channel``, or a LostHostError."""


class Switchboard:
    """Takes calls of other hosts, greets each, and hands on what they say.

    Args:
        silence: seconds without a sign of life after which a host is lost.
        num_hosts: of those that are waited for; ``MOST_CONNECTIONS`` more are taken, and others told that there are
            too many.
    """

    def __init__(
        self, listening: socket.socket, greeting: Training | Dismissal, *, silence: float, num_hosts: int
    ) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        self.num_refused = 0
        """Calls that were not taken, as there were too many connections."""
        self._most = num_hosts + MOST_CONNECTIONS
        self._listening = listening
        self._greeting = greeting
        self._silence = silence
        self._room = threading.Semaphore(self._most)
        self._closed = threading.Event()
        self._peers: list[Peer] = []
        threading.Thread(target=self._take_calls, daemon=True).start()

    def tell(self, message: Ended) -> None:
        """Take no more calls, and send ``message`` to all who have called: also those that were not needed."""
        self._take_no_more()
        for peer in [*self._peers]:
            peer.channel.send(message)

    def _take_no_more(self) -> None:
        self._closed.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def close(self) -> None:
        """Take no more calls, and end those that there are."""
        self._take_no_more()
        for peer in [*self._peers]:
            peer.channel.hang_up()
        deadline = time.monotonic() + PARTING_SECONDS
        while self._peers and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        for peer in [*self._peers]:
            peer.channel.close()

    def _take_calls(self) -> None:
        while True:
            try:
                connection, (address, _) = self._listening.accept()
            except OSError:  # closed; or that of a caller who went before, or of a system short of files
                if self._closed.wait(PAUSE_SECONDS):
                    return
                continue
            if not self._room.acquire(blocking=False):
                self._refuse(connection)
                continue
            peer = Peer(Channel(connection, silence=self._silence), address)
            self._peers.append(peer)
            threading.Thread(target=self._listen_to, args=[peer], daemon=True).start()

    def _refuse(self, connection: socket.socket) -> None:
        """Tell a caller, and at the first also those who read the log here, that there are too many connections."""
        self.num_refused += 1
        if self.num_refused == 1:
            logger.warning(
                "%d connections are open here, most of them idle: further calls are refused until one ends",
                self._most,
            )
        with connection, contextlib.suppress(OSError):
            fault = f"{self._most} other connections are open at the head, most of them idle; it takes no more"
            connection.sendall(encoded(Ended(fault=fault)))

    def _listen_to(self, peer: Peer) -> None:
        peer.channel.send(self._greeting)
        try:
            while True:
                self.events.put(Event(peer, peer.channel.receive()))
        except LostHostError as error:
            self.events.put(Event(peer, error))
        finally:
            self._room.release()
            peer.channel.close()
            self._peers.remove(peer)
