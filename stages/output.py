"""The one way to the terminal, on which names, labels and messages of others neither move a cursor nor forge a line."""

import os
from typing import Any

import click

from pipeline.core.printable import printable


def say(text: object, *, err: bool = False, **style: Any) -> None:
    """Print the lines ``text``, their control characters escaped; with ``err`` to standard error.

    ``style`` (such as ``fg="red"``, see `click.style`) shows on terminals, unless the variable NO_COLOR is set.
    """
    lines = "\n".join(map(printable, str(text).split("\n")))
    try:
        click.secho(lines, err=err, color=False if os.environ.get("NO_COLOR") else None, **style)
    except OSError as error:
        if error.filename is None:  # where the shell has led it to
            error.filename = os.path.realpath(f"/proc/self/fd/{2 if err else 1}")
        raise
