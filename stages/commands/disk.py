"""``fmkt repair`` and ``fmkt settle``: before and after DVC, for what a power cut takes; ``make repro`` runs both."""

from pathlib import Path

import click

from pipeline.core.durable import settle as settle_project
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="Remove what a power cut left half-written.")
@exit_codes
def repair() -> None:
    """Remove what a power cut left half-written of DVC's own files in this folder; nothing where all is whole."""
    from pipeline.preflight.repair import repair as repaired

    for line in repaired(Path()):
        say(f"repaired: {line}", err=True)


@click.command(short_help="Wait until all that was written is on the disk.")
@exit_codes
def settle() -> None:
    """Return when all that has been written to this folder is on the disk, where a power cut does not take it."""
    settle_project(Path())
