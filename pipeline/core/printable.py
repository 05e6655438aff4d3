"""Texts from outside, such as names of files, in a form that breaks no terminal, log or file."""


def printable(text: object) -> str:
    r"""Return ``text`` with every character that is not printable, or no UTF-8, escaped: ``caf\xe9``, ``a\x1b[1m``."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


LONGEST = 1400
"""Characters of a line that somebody is to read."""


def without_its_middle(line: str) -> str:
    """Return ``line``, without its middle where it is too long to read: its ends say what is wrong, and where."""
    if len(line) <= LONGEST:
        return line
    start, end = line[: LONGEST - 400], line[-300:]
    return f"{start} [... {len(line) - len(start) - len(end)} characters ...] {end}"


def first_line(text: object) -> str:
    """Return the first line of ``text``, printable and short enough to read."""
    return without_its_middle(printable(str(text).strip().partition("\n")[0]))


def _escaped(char: str) -> str:
    """Return ``char`` as Python writes it, and a byte that was no UTF-8 as that byte."""
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()
