"""What a campaign of attacks is: a number of cases, each drawn from a seed, and what may come of one."""

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple

Verdict = Literal["held", "harmless", "broke"]
VERDICTS: tuple[Verdict, ...] = ("held", "harmless", "broke")


class Outcome(NamedTuple):
    """What became of one case."""

    kind: str
    """What was done, in a few words: a row of the table."""
    verdict: Verdict
    """``held``: refused as promised; ``harmless``: accepted, and the result is right; ``broke``: anything else."""
    detail: str = ""
    """Of what broke: what was seen."""


Attack = Callable[[random.Random, Path], Outcome]
"""Makes and tries one case. It draws from the generator alone, and writes in the folder, which is its own and empty."""


class Campaign(NamedTuple):
    """A kind of attack."""

    summary: str
    cases: int
    """Of ``make attack``."""
    short: int
    """Of the tests."""
    seconds: float
    """That a case may take on a busy host; one that takes more hangs."""
    opened: str
    """``module:function``: a context manager that yields an `Attack`; it makes once what all cases share."""
    alone: bool = False
    """Whether one case at a time runs: what it shares is dear, or takes the whole host."""

    def open(self) -> AbstractContextManager[Attack]:
        """Import the campaign and return its context manager.

        Raises:
            NotHereError: as the manager is entered: the host has not what this campaign needs.
        """
        module, function = self.opened.split(":")
        manager: AbstractContextManager[Attack] = getattr(import_module(module), function)()
        return manager


class NotHereError(Exception):
    """This host lacks what a campaign needs, such as the right to mount; the message says what."""


def case_generator(name: str, seed: int, case: int) -> random.Random:
    """Return the generator of a case, which depends on campaign, seed and number alone."""
    return random.Random(f"{name} {seed} {case}")  # noqa: S311


def refusal(code: int, output: str) -> str:
    """Return why a command's end is none that users are promised, empty if it is one.

    Promised are exit codes 0, 1 and 2, no traceback, and one line of error where the code is not 0.
    """
    if "Traceback (most recent call last)" in output:
        return f"a traceback: {output[-1500:]}"
    if code not in {0, 1, 2}:
        return f"exit code {code}: {output[-500:]}"
    if code and not output.strip():
        return f"exit code {code} and not a word"
    return ""
