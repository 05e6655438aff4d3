"""Tables and lists for a terminal."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence

WIDTH = 100
"""Characters of a line that every terminal shows whole."""


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return ``rows`` below their ``header`` as lines with the columns aligned."""
    lines = in_columns([header, *rows])
    return [lines[0].rstrip(), "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])]


def in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of equal length with the columns aligned: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def described(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return lines of at most ``WIDTH`` characters, each text beside what it is about."""
    rows = list(rows)
    width = max(len(subject) for subject, _ in rows) + 2
    lines = []
    for subject, text in rows:
        lines += wrapped(text, start=subject.ljust(width), indent=width)
    return lines


def wrapped(text: str, *, start: str = "", indent: int = 2) -> list[str]:
    """Return ``text`` behind ``start`` in lines of at most ``WIDTH`` characters, but for words that are longer."""
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def counted(counts: Mapping[str, int]) -> str:
    """Return ``counts`` as "3 .txt, 1 .xml", the largest first."""
    return ", ".join(
        f"{count:,} {what}" for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )


def steps_in_words(num_steps: int | None, *, none: str = "none") -> str:
    """Return a number of sampling steps for people; of a student that knows no steps it is ``none``."""
    return none if num_steps is None else str(num_steps)


def with_error(share: float, error: float | None) -> str:
    """Return ``share`` in percent with its standard error, where that is known: "98.61% +/- 0.62"."""
    return f"{share:.2%}" if error is None else f"{share:.2%} +/- {100 * error:.2f}"
