"""``fmkt compare``: methods and seeds against each other."""

from pathlib import Path

import click

from pipeline.core.errors import require_extra
from stages.common import path_option
from stages.exit_codes import exit_codes
from stages.output import say


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@path_option("--out", "Folder of the runs; what has finished there is not run again.")
@path_option("--report", "Folder to write: tables and plots.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Runs side by side.")
@exit_codes
def compare(config: Path, out: Path, report: Path, jobs: int) -> None:
    """Train every method and seed of the comparison file CONFIG from one teacher; write a table and plots."""
    with require_extra("make install"):
        from pipeline.comparison.command import run_comparison

    say(run_comparison(config, out, report, jobs=jobs))
