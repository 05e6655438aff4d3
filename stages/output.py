"""The one way to the terminal: what names, labels and messages hold can neither move a cursor nor forge a line's end."""

import click

from pipeline.core.printable import printable


def say(text: object, *, err: bool = False) -> None:
    """Print the lines ``text``, their control characters escaped; with ``err`` to standard error."""
    click.echo("\n".join(map(printable, str(text).split("\n"))), err=err)
