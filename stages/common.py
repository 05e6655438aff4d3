"""What every stage's command line shares: its options, its log, its exit codes."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import ParamSpec

import click

from pipeline.core.errors import BusyError, GateError, LostProcessError, UserError, system_fault
from pipeline.core.logging_setup import logged
from pipeline.preflight.stage_table import STAGES, StageEntry

Arguments = ParamSpec("Arguments")


def path_option(name: str, meaning: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a required option ``name`` that takes a path."""
    return click.option(name, type=click.Path(path_type=Path), required=True, help=meaning)


def params_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--params``, the parameters file."""
    return click.option(
        "--params",
        "params_path",
        type=click.Path(path_type=Path),
        default=Path("params.yaml"),
        show_default=True,
        help="Parameters file.",
    )(function)


def stage_options(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return what adds ``--params`` and the options of the stage ``name`` in the table of stages.

    The function takes ``params_path`` and a path for each option, by argument name.
    """

    def add(function: Callable[..., None]) -> Callable[..., None]:
        function = _keeping_to_its_code(STAGES[name], function)
        for option in reversed(STAGES[name].options):
            function = path_option(option.name, option.help)(function)
        return params_option(function)

    return add


def _keeping_to_its_code(stage: StageEntry, function: Callable[..., None]) -> Callable[..., None]:
    """Let ``function`` fail where it loads code that the digest of ``stage`` leaves out: DVC would not see a change."""

    @functools.wraps(function)
    def command(*args: object, **kwargs: object) -> None:
        # a process of its own has run all that it has loaded; in a comparison's, stages run one after another
        before = set() if stage.module in sys.orig_argv else set(sys.modules)
        function(*args, **kwargs)
        for name in set(sys.modules) - before:
            path = PurePosixPath(name.replace(".", "/")).with_suffix(".py")
            if any(path.match(pattern) for pattern in stage.never_loads):
                table = "pipeline/preflight/stage_table.py"
                raise RuntimeError(f"{stage.name} has loaded {name}; take it out of its never_loads in {table}")

    return command


def exit_codes(function: Callable[Arguments, None]) -> Callable[Arguments, None]:
    """Log to standard error; end with 2 at wrong input, and 1 at a failed gate, a busy folder, a full disk.

    One line says what is wrong; a fault of the program itself has a traceback.
    """

    @functools.wraps(function)
    def command(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
        try:
            with logged():
                function(*args, **kwargs)
        except UserError as error:
            _stop(error, code=2)
        except (BusyError, GateError, LostProcessError) as error:
            _stop(error, code=1)
        except OSError as error:
            fault = system_fault(error)
            if fault is None:
                raise
            _stop(fault, code=1)

    return command


def _stop(error: Exception | str, *, code: int) -> None:
    for line in str(error).splitlines():
        click.echo(f"error: {line}", err=True)
    sys.exit(code)
