"""``fmkt summary``: the result of the last run."""

from pathlib import Path

import click

from stages.exit_codes import exit_codes
from stages.output import say


@click.command()
@exit_codes
def summary() -> None:
    """Print what the last run brought: accuracy, size, parity and latency of each runtime and file."""
    from pipeline.evaluation.summary import summarize

    say(summarize(Path()))
