"""The one way to the terminal, on which names, labels and messages of others neither move a cursor nor forge a line."""

import click

from pipeline.core.printable import printable


def say(text: object, *, err: bool = False) -> None:
    """Print the lines ``text``, their control characters escaped; with ``err`` to standard error."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
