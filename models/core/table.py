"""Tables: what can be chosen by name, an entry for each choice; nothing heavy is imported before one is loaded."""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def no_loader() -> Any:
    """Stand for a loader that was not given; the table refuses the entry."""
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A choice in a table: all that is particular to it."""

    name: str
    """As people write it in a parameters file or on the command line."""
    description: str
    """What it is, in a few words, for help texts and documentation."""
    load: Callable[[], Any] = no_loader
    """Imports what it needs and returns what it is."""

    def faults(self) -> Iterator[str]:
        """Yield what is wrong with this entry; kinds of entries add their own checks."""
        if not self.name:
            yield "has no name"
        elif not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            yield "has a name of other characters than letters, digits, '_', '.' and '-'"
        if not self.description or not isinstance(self.description, str):
            yield "has no description"
        if not callable(self.load) or self.load is no_loader:
            got = "nothing" if self.load is no_loader else repr(self.load)
            yield f"has no loader (got {got}); give a function that imports it and returns it"


E = TypeVar("E", bound=Entry)
Value = TypeVar("Value")


class UnknownNameError(ValueError, KeyError):
    """A name that no entry of a table has."""

    def __str__(self) -> str:
        return str(self.args[0])


class Table(Mapping[str, E]):
    """Entries by name, in the order in which they are shown.

    Args:
        kind: what the entries are, for messages: "schedule".

    Raises:
        ValueError: an entry has a fault, or two have one name; names the kind and the entry.
    """

    def __init__(self, kind: str, *entries: E) -> None:
        self.kind = kind
        self._entries: dict[str, E] = {}
        for entry in entries:
            faults = list(entry.faults())
            if entry.name in self._entries:
                faults.append("stands twice in the table")
            if faults:
                raise ValueError(f"entry {entry.name!r} of the {kind} table: {'; '.join(faults)}")
            self._entries[entry.name] = entry

    def __getitem__(self, name: str) -> E:
        """Return the entry called ``name``.

        Raises:
            UnknownNameError: there is none; the message has the nearest names, and all known ones.
        """
        return choose(self._entries, name, kind=self.kind)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def markdown(self) -> str:
        """Return the table for documentation: name and description of each entry."""
        rows = [f"| `{entry.name}` | {entry.description} |" for entry in self.values()]
        return "\n".join([f"| {self.kind} | |", "|---|---|", *rows])


def choose(table: Mapping[str, Value], name: str, *, kind: str) -> Value:
    """Return ``table[name]``.

    Raises:
        ValueError: the name is unknown; the message says what ``kind`` of thing it should be, and has the nearest names
            and all known ones.
    """
    if name not in table:
        raise UnknownNameError(unknown_name(kind, name, table))
    return table[name]


LISTED = 25
"""So many names, at most, are listed whole."""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message about ``name``, which none of the ``known`` names of a ``kind`` is.

    It has the nearest names: those that are spelt alike or, where there are none, that have it as a part.
    """
    names = list(known)
    near = difflib.get_close_matches(str(name), names) or [one for one in names if name and str(name) in one][:3]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    shown = f"known: {', '.join(names)}" if len(names) <= LISTED else f"{len(names)} are known"
    return f"unknown {kind} {name!r}; {hint}{shown}"
