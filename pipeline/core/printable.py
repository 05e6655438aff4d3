"""Texts from outside, such as names of files, in a form that breaks no terminal, log or file."""


def printable(text: object) -> str:
    r"""Return ``text`` with every character that is not printable, or no UTF-8, escaped: ``caf\xe9``, ``a\x1b[1m``."""
    return "".join(char if char.isprintable() else _escaped(char) for char in str(text))


def _escaped(char: str) -> str:
    """Return ``char`` as Python writes it, and a byte that was no UTF-8 as that byte."""
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else char.encode("unicode_escape").decode()
