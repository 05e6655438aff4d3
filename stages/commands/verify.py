"""``fmkt verify``: whether a package is intact, and right on this host."""

from pathlib import Path

import click

from stages.commands.options import package_option, session_options
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="Check a package's sums and rerun its images.")
@package_option
@click.option(
    "--allowed-signers",
    type=click.Path(path_type=Path),
    help="File of the keys that you trust, as ssh-keygen reads it; one of them must have signed the package.",
)
@click.option("--identity", metavar="NAME", help="Whose key of --allowed-signers it must be.  [default: anyone's]")
@session_options
@exit_codes
def verify(
    package: Path,
    allowed_signers: Path | None,
    identity: str | None,
    provider: str,
    num_threads: int,
    proof_seconds: float,
) -> None:
    """Recompute the package's sums and rerun its images; names what is damaged or wrong."""
    from pipeline.core.text_table import aligned
    from pipeline.package.sums import SIGNATURE
    from pipeline.package.verify import verify_package

    if identity is not None and allowed_signers is None:
        raise click.UsageError("--identity needs --allowed-signers, the file that has the keys of this name")
    opened, found, signer = verify_package(
        package,
        provider=provider,
        num_threads=num_threads,
        signers=allowed_signers,
        identity=identity,
        seconds=proof_seconds,
    )
    rows = [[file.file, f"{file.parity.max_abs:.1e}", f"{file.parity.agreement:.2%}", "right"] for file in found]
    say("\n".join(aligned(["packaged images", "max difference", "same answer", "on this host"], rows)))
    for warning in opened.warnings:
        say(f"warning: {warning}")
    if signer is not None:
        say(f"{package}: signed by {signer.identity}, key {signer.key}")
    elif (package / SIGNATURE).is_file():
        say(f"{package}: its signature was not checked; --allowed-signers FILE says whose is trusted")
    say(f"{package}: intact, {len(opened.sums)} files agree with their sums")
