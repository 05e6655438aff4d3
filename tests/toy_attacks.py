"""A campaign that holds, breaks, raises, hangs and dies, by the number that its generator gives."""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from attacks.campaign import Attack, NotHereError, Outcome

WAYS = ("held", "harmless", "wrong", "raises", "hangs", "dies")


@contextlib.contextmanager
def opened() -> Iterator[Attack]:
    yield attack


def attack(rng: random.Random, folder: Path) -> Outcome:
    assert not list(folder.iterdir())
    (folder / "left").write_text("over")
    kind = rng.choice(WAYS)
    if kind == "raises":
        raise ZeroDivisionError("by a case")
    if kind == "hangs":
        time.sleep(3600)
    if kind == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return Outcome(kind, "held" if kind == "held" else "harmless" if kind == "harmless" else "broke", "why")


@contextlib.contextmanager
def not_here() -> Iterator[Attack]:
    raise NotHereError("no such right")
    yield attack
