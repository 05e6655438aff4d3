"""``fmkt compare``: methods and seeds against each other."""

from pathlib import Path

import click

from pipeline.core.errors import require_extra
from stages.commands.options import FiniteRange
from stages.common import path_option
from stages.exit_codes import exit_codes
from stages.output import say


def _jobs(_context: click.Context, _option: click.Parameter, value: str) -> int | None:
    """Return the number that ``value`` is; None for ``auto``."""
    if value == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise click.BadParameter(f"got {value!r}; give a number of runs, at least 1, or auto")
    return int(value)


@click.command(short_help="Train methods and seeds against each other.")
@click.argument("config", type=click.Path(path_type=Path))
@path_option("--out", "Folder of the runs; what has finished there is not run again.")
@path_option("--report", "Folder to write: tables and plots.")
@click.option(
    "--jobs",
    callback=_jobs,
    default="1",
    metavar="N|auto",
    show_default=True,
    help="Runs side by side; auto: by the cores of the host, or by what its GPU takes.",
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a small file for each finished run, to commit; those that are there are not run again.",
)
@click.option(
    "--minutes",
    type=FiniteRange(min=0, min_open=True),
    help="Begin no seed that would not end within this time; the next call goes on.",
)
@click.option("--same-code", is_flag=True, help="Run again what --results has of other code.")
@exit_codes
def compare(
    config: Path,
    out: Path,
    report: Path,
    jobs: int | None,
    results: Path | None,
    minutes: float | None,
    *,
    same_code: bool,
) -> None:
    """Train every method and seed of the comparison file CONFIG from one teacher; write a table and plots."""
    with require_extra("make install"):
        from pipeline.comparison.command import run_comparison

    say(run_comparison(config, out, report, jobs=jobs, results=results, minutes=minutes, same_code=same_code))
