"""An end for what may compute without one, inside of libraries that nothing in Python can interrupt."""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import NoReturn

from pipeline.core.printable import printable


@contextlib.contextmanager
def ended_after(seconds: float, message: str) -> Iterator[None]:
    """End this process with the line ``message`` and exit code 1 where the block takes longer than ``seconds``.

    The libraries let go of Python's lock while they compute, so that another thread can do it; the one that computes
    could not be asked to stop.
    """
    timer = threading.Timer(seconds, _end, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(message: str) -> NoReturn:
    os.write(2, f"error: {printable(message)}\n".encode())
    os._exit(1)
