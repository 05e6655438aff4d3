"""What every stage's command line shares: its options, and that it keeps to its code."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import click

from pipeline.core.durable import CHECKPOINTS, is_run_by_dvc, project_root, settling
from pipeline.preflight.stage_table import PROBE, STAGES, Kind, StageEntry
from stages.exit_codes import errors_end_it


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
        function = _keeping_to_its_code(STAGES[name], _settling_what_came_before(STAGES[name], function))
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


def _settling_what_came_before(stage: StageEntry, function: Callable[..., None]) -> Callable[..., None]:
    """Let ``function`` bring what DVC made of earlier stages' outputs to the disk, in which a power cut may take it.

    Where it reads those of a training, that has no need of its checkpoints then.
    """

    @functools.wraps(function)
    def command(*args: object, **kwargs: object) -> None:
        # the probe runs before anybody knows whether these outputs are whole
        is_one_of_many = "TORCHELASTIC_RUN_ID" in os.environ
        if stage.name == PROBE or is_one_of_many or not is_run_by_dvc():
            function(*args, **kwargs)
            return
        root = project_root()
        finished = tuple(root / CHECKPOINTS / name for name in _stages_read_by(stage))
        with errors_end_it(), settling(root, finished):
            function(*args, **kwargs)

    return command


def _stages_read_by(stage: StageEntry) -> set[str]:
    """Return the names of the stages whose outputs ``stage`` reads."""
    inputs = {option.path for option in stage.options if option.kind is Kind.INPUT}
    outputs = {
        other.name: {option.path for option in other.options if option.kind not in {Kind.INPUT, Kind.FACTS}}
        for other in STAGES.values()
    }
    return {name for name, paths in outputs.items() if paths & inputs}
