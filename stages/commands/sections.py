"""Commands in sections, by what people do with them."""

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Sections(click.Group):
    """A group whose help lists its commands under titles, in the order in which they stand there."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[click.Command]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.sections = sections
        for commands in sections.values():
            for command in commands:
                self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands of each section."""
        width = max(map(len, self.commands))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        ((command.name or "").ljust(width), command.get_short_help_str(formatter.width))
                        for command in commands
                    ]
                )
