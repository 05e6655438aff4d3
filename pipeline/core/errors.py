"""Errors that end a stage with one line instead of a traceback."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Self


class UserError(ValueError):
    """The user's input or parameters are wrong: what was got, what is allowed, how to fix it. Exit code 2."""


class GateError(RuntimeError):
    """The input was right, but a result is not good enough to go on (parity, accuracy, divergence). Exit code 1."""


class BusyError(RuntimeError):
    """Another process is at the same work. Exit code 1."""


class LostProcessError(RuntimeError):
    """A process that this one started ended before its work was done. Exit code 1."""

    @classmethod
    def while_doing(cls, work: str, exit_code: int | None = None) -> Self:
        """Return the error of a process that ``work``; ``exit_code`` is as ``multiprocessing`` gives it, if known."""
        how = "was killed" if exit_code is None else f"ended with exit code {exit_code}"
        if exit_code is not None and exit_code < 0:
            how = f"was ended by signal {-exit_code} ({signal.strsignal(-exit_code)})"
        return cls(f"a process that {work} {how}; where memory ran short, give it more or ask less, then run it again")


@contextlib.contextmanager
def user_error(key: str) -> Iterator[None]:
    """Turn a ValueError of a library into a UserError that names the parameter ``key`` it came from."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{key}: {error}") from error


@contextlib.contextmanager
def readable_file(place: object) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file, or ``place`` where the error names none."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or place}: cannot be read ({error.strerror})") from error


@contextlib.contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn a package that is not installed into an error that names what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"the Python package {error.name} is not installed; {extra}") from error
