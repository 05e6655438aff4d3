"""Choice by name through one explicit table."""

from collections.abc import Mapping
from typing import TypeVar

Entry = TypeVar("Entry")


def choose(table: Mapping[str, Entry], name: str, *, kind: str) -> Entry:
    """Return ``table[name]``.

    Raises:
        ValueError: the name is unknown; the message says what ``kind`` of thing it should be and lists the known names.
    """
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(table))}")
    return table[name]
