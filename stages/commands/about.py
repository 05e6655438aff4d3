"""``fmkt about``: what a package says of itself."""

import json
from pathlib import Path

import click

from stages.commands.options import package_option
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="Name, version, licence and files of a package.")
@package_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@exit_codes
def about(package: Path, *, as_json: bool) -> None:
    """Print name, version, licence, commit, images and files of a package."""
    from pipeline.package.about import about_package, about_rows
    from pipeline.package.reader import Package

    found = about_package(Package.open(package))
    if as_json:
        say(json.dumps(found, indent=2))
        return
    rows = about_rows(found)
    width = max(len(title) for title, _ in rows)
    say("\n".join(f"{title:{width}}  {value}" for title, value in rows))
