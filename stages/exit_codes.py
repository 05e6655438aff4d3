"""How every command ends: its log, its exit code, and one line on what is wrong."""

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec

from pipeline.core.errors import (
    BusyError,
    DivergedError,
    GateError,
    LostHostError,
    LostPeerError,
    LostProcessError,
    SaidError,
    UserError,
    system_fault,
)
from pipeline.core.logging_setup import logged
from pipeline.core.printable import first_line, printable, without_its_middle
from stages.output import say

Arguments = ParamSpec("Arguments")


def exit_codes(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Log to standard error; end with 2 at wrong input, and 1 at a failed gate, a busy folder, a full disk.

    One line says what is wrong; a fault of the program itself has a traceback.
    """

    @functools.wraps(function)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        with errors_end_it(), logged():
            function(*args, **kwargs)

    return command


@contextlib.contextmanager
def errors_end_it() -> Iterator[None]:
    """End the process with one line and its exit code where an error has one."""
    try:
        yield
    except UserError as error:
        _stop(error, code=2)
    except SaidError as error:  # before GateError: one that diverged is both
        sys.exit(error.exit_code)
    except (BusyError, GateError, LostHostError, LostProcessError) as error:
        _stop(error, code=1)
    except LostPeerError as error:
        if not _leave(error, lost_peer=True):
            say_error(error)
        sys.exit(1)
    except KeyboardInterrupt:
        _stop(
            "interrupted; the same command begins again, a training after the last epoch that it has finished", code=1
        )
    except OSError as error:
        fault = system_fault(error)
        if fault is None:
            raise
        _stop(fault, code=1)


def _stop(error: Exception | str, *, code: int) -> None:
    _leave(error, lost_peer=False)
    say_error(error)
    sys.exit(code)


def say_error(error: Exception | str) -> None:
    """Print each line of ``error``, without the middle of one that is too long to read."""
    for line in str(error).split("\n"):
        say(without_its_middle(f"error: {printable(line)}"), err=True, fg="red")


def _leave(error: Exception | str, *, lost_peer: bool) -> bool:
    """Leave ``error`` where torchrun looks for it, for its starter; return whether torchrun has started this process.

    It takes a message with a time of its own, by which it finds the first of several.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path is None:
        return False
    fault = first_line(error)
    said = {"message": fault, "timestamp": int(time.time()), "fault": fault, "lost_peer": lost_peer}
    said["diverged"] = isinstance(error, DivergedError)
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps(said), encoding="utf-8")
    return True
