"""``fmkt build-engine``: a TensorRT engine from a package, on the device that will run it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.core.errors import require_extra
from pipeline.export.precisions import FP32, engine_precisions
from pipeline.export.tensorrt.plan import HARDWARE
from pipeline.package.requirements import ENGINE_FILE
from stages.commands.options import package_option
from stages.exit_codes import exit_codes
from stages.output import say

COUNT = click.IntRange(min=1)
OVERRIDES = [
    click.option("--min-batch", type=COUNT, help="Smallest batch."),
    click.option("--opt-batch", type=COUNT, help="Batch that the engine is tuned for."),
    click.option("--max-batch", type=COUNT, help="Largest batch."),
    click.option("--optimization-level", type=click.IntRange(0, 5), help="0: fast to build, 5: thorough."),
    click.option("--workspace-mib", type=COUNT, help="Memory that a layer may use, in MiB."),
    click.option(
        "--version-compatible/--no-version-compatible", default=None, help="Let later TensorRT versions load it."
    ),
    click.option(
        "--hardware-compatibility",
        type=click.Choice(list(HARDWARE)),
        help="Other GPUs that may load it.",
    ),
    click.option("--timing-cache/--no-timing-cache", default=None, help="Keep timings for the next build."),
]
"""What may differ from the package's own settings."""


def _overrides(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OVERRIDES):
        function = option(function)
    return function


@click.command("build-engine", short_help="Build and verify a TensorRT engine on this host.")
@package_option
@click.option(
    "--precision",
    type=click.Choice(engine_precisions()),
    default=FP32,
    show_default=True,
    help="Which of its ONNX files.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write.  [default: engines in the package]",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder of the timing cache.  [default: where this user's list of engines lies]",
)
@_overrides
@exit_codes
def build_engine(package: Path, precision: str, out: Path | None, cache: Path | None, **overrides: Any) -> None:
    """Build an engine from a package and verify it on this device; options left out are as in its engine.json."""
    from pipeline.core.host import probe_tensorrt

    with require_extra(f"pip install -r {ENGINE_FILE} of the package, or make install in a checkout"):
        from pipeline.package.build_engine import build_from_package, engine_table
    from pipeline.package.reader import Package

    opened = Package.open(package)
    given = {name: value for name, value in overrides.items() if value is not None}
    about = build_from_package(opened, precision, host=probe_tensorrt(), out=out, overrides=given, cache=cache)
    say(engine_table(about, opened.task))
