"""Options that several commands take; no stage loads them."""

from collections.abc import Callable
from pathlib import Path

import click

from pipeline.runtimes.provider import PROVIDER_NAMES


def package_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--package``, the folder of a package."""
    return click.option(
        "--package",
        type=click.Path(path_type=Path),
        default=Path("artifacts/package"),
        show_default=True,
        help="Folder of the package.",
    )(function)


def session_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add ``--provider`` and ``--num-threads`` of an ONNX Runtime session."""
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
    return provider(threads(function))
