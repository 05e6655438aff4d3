"""Other programs that keep cores busy, as on a shared host."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Let ``count`` processes count meanwhile, on the cores that this process may use."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
