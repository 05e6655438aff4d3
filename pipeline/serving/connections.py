"""The connections of a listener: how many there are, and for how long each may keep the server waiting."""

import asyncio
from typing import Protocol

SWEEP_SECONDS = 0.5
"""Between two looks at what is overdue."""


class Connection(Protocol):
    """What a guard knows of a connection."""

    deadline: float
    """A moment of the event loop's clock; infinity while it is the server's turn."""

    @property
    def is_sending(self) -> bool:
        """Whether a request has begun whose body is still to come."""

    def overdue(self) -> None:
        """Do what is due once the deadline has passed."""

    def give_way(self) -> None:
        """Close at once, since another one needs the place."""


class ConnectionGuard:
    """At most ``limit`` connections, none of which waits for its client beyond its deadline.

    Where all places are taken, a newcomer gets that of the connection that has been waiting longest for its client:
    one without a complete head, else one without a complete body. So those who say nothing cannot shut others out, such
    as probes of health, which are in and out within moments.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.num_displaced = 0
        self._all: dict[Connection, None] = {}
        self._waiting: dict[Connection, None] = {}  # longest waiting first

    def __len__(self) -> int:
        return len(self._all)

    def enter(self, connection: Connection) -> bool:
        """Take a new connection, which waits for its client; return whether there is a place for it.

        One without a place is known nevertheless, as one beyond the limit, until the next comes.
        """
        if len(self._all) >= self.limit:
            last = next(iter(self._waiting), None) or next((each for each in self._all if each.is_sending), None)
            if last is not None:
                self.num_displaced += 1
                self.leave(last)
                last.give_way()
        has_place = len(self._all) < self.limit
        self._all[connection] = self._waiting[connection] = None
        return has_place

    def leave(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._all.pop(connection, None)
        self._waiting.pop(connection, None)

    def waits(self, connection: Connection, deadline: float) -> None:
        """Note that from now on the server waits for the client of ``connection``, until ``deadline``."""
        connection.deadline = deadline
        if connection in self._all:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def works(self, connection: Connection) -> None:
        """Note that it is the server's turn."""
        connection.deadline = float("inf")
        self._waiting.pop(connection, None)

    async def watch(self) -> None:
        """End what is overdue, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = loop.time()
            for connection in [each for each in self._all if each.deadline <= now]:
                connection.overdue()
