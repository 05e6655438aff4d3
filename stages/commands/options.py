"""Options that several commands take; no stage loads them."""

import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import stages
from pipeline.runtimes.provider import PROOF_SECONDS, PROVIDER_NAMES


class FiniteRange(click.FloatRange):
    """A range of numbers, of which nan and infinity are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number; ends the command where it is none."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def default_package() -> Path:
    """Return the package that is meant where none is given: the one that this code lies in as a zip archive, if so."""
    home = Path(stages.__file__).parents[1]
    return home.parent if home.is_file() else Path("artifacts/package")


def package_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--package``, the folder of a package."""
    return click.option(
        "--package",
        type=click.Path(path_type=Path),
        default=default_package,
        show_default=str(default_package()),
        help="Folder of the package.",
    )(function)


def proof_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--proof-seconds``, the end of a file that loads or computes without one."""
    return click.option(
        "--proof-seconds",
        type=FiniteRange(min=0, min_open=True, max=threading.TIMEOUT_MAX),
        default=PROOF_SECONDS,
        show_default=True,
        help="Seconds that a file of the package may take to load, and to be proved on images.",
    )(function)


def session_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--provider``, ``--num-threads`` and ``--proof-seconds`` of an ONNX Runtime session."""
    threads = click.option(
        "--num-threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of an inference."
    )
    provider = click.option(
        "--provider",
        type=click.Choice(PROVIDER_NAMES),
        default="cpu",
        show_default=True,
        help="What of ONNX Runtime computes; no other takes its place.",
    )
    return provider(threads(proof_option(function)))
