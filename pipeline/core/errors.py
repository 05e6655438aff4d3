"""Errors that end a stage with one line instead of a traceback."""

import contextlib
from collections.abc import Iterator

from pipeline.core.printable import printable


class UserError(ValueError):
    """The user's input or parameters are wrong: what was got, what is allowed, how to fix it. Exit code 2."""


class GateError(RuntimeError):
    """The input was right, but a result is not good enough to go on (parity, accuracy, divergence). Exit code 1."""


class BusyError(RuntimeError):
    """Another process is at the same work. Exit code 1."""


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
        raise UserError(f"{printable(error.filename or place)}: cannot be read ({error.strerror})") from error


@contextlib.contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn a package that is not installed into an error that names what installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"the Python package {error.name} is not installed; {extra}") from error
