"""Threads that run models while the event loop goes on; a session lets go of Python's lock while it computes."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from pipeline.serving.deadlines import TimeLimit
from pipeline.serving.refusal import Reason, RefusalError

BRIEF_NS = 10_000_000
"""Nanoseconds that an inference may take and still be run by the event loop itself."""

Result = TypeVar("Result")


class Workers:
    """``num_workers`` threads and a queue before them.

    Handing work to a thread and the result back wakes two sleeping threads, which costs tenths of a millisecond. Where
    there is one worker, nothing runs and the work is brief, the event loop therefore does it itself: no other request
    could be computed meanwhile, and others, health among them, wait no longer than one brief inference.
    """

    def __init__(self, num_workers: int) -> None:
        self.pool = ThreadPoolExecutor(num_workers, thread_name_prefix="inference")
        self.num_workers = num_workers
        self.last: Future[Any] | None = None

    async def run(self, work: Callable[[], Result], deadline: float, *, expected_ns: float | None) -> Result:
        """Return what ``work`` returns, which takes about ``expected_ns`` nanoseconds; None: nobody knows.

        ``deadline`` is a moment of the event loop's clock. Work that has not begun by then is not done; work that has
        goes on to its end, since nothing can stop a session in the middle, and its result is dropped.

        Raises:
            RefusalError: the deadline has passed.
        """
        if asyncio.get_running_loop().time() >= deadline:
            raise late()
        if self._runs_here(expected_ns):
            return work()
        try:
            async with TimeLimit(deadline):
                future = self.last = self.pool.submit(work)
                return await asyncio.wrap_future(future)
        except TimeoutError as error:
            raise late() from error

    def _runs_here(self, expected_ns: float | None) -> bool:
        idle = self.last is None or self.last.done()  # a single worker takes its work in order
        return self.num_workers == 1 and idle and expected_ns is not None and expected_ns < BRIEF_NS

    def close(self) -> None:
        """Drop what waits; what runs ends by itself."""
        self.pool.shutdown(wait=False, cancel_futures=True)


def late() -> RefusalError:
    """Return the refusal of what came too late."""
    return RefusalError(Reason.DEADLINE, "the answer was not ready in time")
