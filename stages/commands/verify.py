"""``fmkt verify``: whether a package is intact, and right on this host."""

from pathlib import Path

import click

from stages.commands.options import package_option, session_options
from stages.exit_codes import exit_codes


@click.command()
@package_option
@session_options
@exit_codes
def verify(package: Path, provider: str, num_threads: int) -> None:
    """Recompute the package's sums and rerun its images; names what is damaged or wrong."""
    from pipeline.core.text_table import aligned
    from pipeline.package.verify import verify_package

    opened, found = verify_package(package, provider=provider, num_threads=num_threads)
    rows = [[file.file, f"{file.parity.max_abs:.1e}", f"{file.parity.agreement:.2%}", "right"] for file in found]
    click.echo("\n".join(aligned(["packaged images", "max difference", "same answer", "on this host"], rows)))
    for warning in opened.warnings:
        click.echo(f"warning: {warning}")
    click.echo(f"{package}: intact, {len(opened.sums)} files agree with their sums")
