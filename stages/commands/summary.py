"""``fmkt summary``: the result of the last run."""

from pathlib import Path
from typing import Any

import click

from stages.exit_codes import exit_codes
from stages.output import say

STYLES: dict[str, dict[str, Any]] = {"ships": {"bold": True}, "how good": {"bold": True}, "warning:": {"fg": "yellow"}}
"""By what a line begins with; what goes on from it, indented, looks the same."""


@click.command(short_help="What the last run brought.")
@exit_codes
def summary() -> None:
    """Print what the last run brought: what ships, how good, how fast and how sure it is, then the figures."""
    from pipeline.evaluation.summary import summarize

    style: dict[str, Any] = {}
    for line in summarize(Path()).split("\n"):
        if not line.startswith("  "):
            style = next((style for start, style in STYLES.items() if line.startswith(start)), {})
        say(line, **style)
