"""How a host's processes failed, and which of several failures explains the others."""

import signal
from typing import NamedTuple

from pipeline.core.errors import LostHostError, LostProcessError, SaidDivergedError, SaidError


class Outcome(NamedTuple):
    """How a process of a training failed."""

    fault: str
    """In words."""
    weight: int
    """How much it explains: 2 a process said what is wrong, 1 one was ended, 0 one lost the connection to another."""
    exit_code: int
    was_said: bool
    """Whether the process has printed the fault on its own host."""
    has_diverged: bool = False
    """Whether the fault is that the training diverged, which it would again."""

    @classmethod
    def of_words(cls, fault: str, exit_code: int, *, has_diverged: bool = False) -> "Outcome":
        """Return that of a process which said ``fault`` and ended."""
        return cls(fault, 2, exit_code if exit_code in {1, 2} else 1, was_said=True, has_diverged=has_diverged)

    @classmethod
    def of_exit(cls, exit_code: int) -> "Outcome":
        """Return that of a process which ended without a word."""
        if exit_code < 0:
            how = f"was ended by signal {-exit_code} ({signal.strsignal(-exit_code)})"
        else:
            how = f"ended with exit code {exit_code}"
        return cls(f"a process of the training {how}", 1, exit_code if exit_code in {1, 2} else 1, was_said=False)

    @classmethod
    def of_lost_peer(cls, fault: str = "the processes of the training lost each other") -> "Outcome":
        """Return that of a process which lost the connection to another."""
        return cls(fault, 0, 1, was_said=False)

    def error(self) -> Exception:
        """Return the error with which the host ends on which it happened."""
        if self.was_said:
            kind = SaidDivergedError if self.has_diverged else SaidError
            return kind(self.fault, self.exit_code)
        if self.weight:
            return LostProcessError(
                f"{self.fault}; where memory ran short, give it more or ask less, then run it again"
            )
        return LostHostError(self.fault)
