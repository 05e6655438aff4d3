"""A time limit for a part of a coroutine, as ``asyncio.timeout_at`` sets it from Python 3.11 on."""

import asyncio
import sys
from types import TracebackType


class TimeLimit:
    """Ends what runs within it, by TimeoutError, at ``deadline``, a moment of the event loop's clock."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_late = False

    async def __aenter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self.task = task
        self.timer = loop.call_at(self.deadline, self.end)

    def end(self) -> None:
        """End what runs, as if the deadline had passed."""
        self.is_late = True
        self.task.cancel()  # the task waits, within the limit, and gets it there

    async def __aexit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self.timer.cancel()
        if not self.is_late:
            return
        if sys.version_info >= (3, 11) and self.task.uncancel() > 0:
            return  # somebody else cancelled it as well, and means it
        if kind is asyncio.CancelledError:
            raise TimeoutError
