"""``fmkt params``: what the parameters mean."""

import click

from pipeline.core.errors import require_extra
from stages.exit_codes import exit_codes
from stages.output import say


@click.command(short_help="What a parameter means, takes and is by default.")
@click.option("--explain", "key", metavar="KEY", help="A section or key, e.g. distill_student.flow.num_steps.")
@exit_codes
def params(key: str | None) -> None:
    """List the sections of the parameters file, or say what one of its keys means, takes and is by default."""
    with require_extra("make install"):
        from pipeline.params.rendering import explain, overview

    say(overview() if key is None else explain(key))
