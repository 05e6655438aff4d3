"""Values of files of annotations, checked where they are used, and shown where they are wrong."""

from __future__ import annotations

import math

from pipeline.core.errors import UserError

LONGEST = 40
"""Characters of a value that a message shows."""


def shortened(value: object) -> str:
    """Return ``value`` of a file as a message shows it."""
    if isinstance(value, int) and abs(value) >= 10**LONGEST:
        return "an integer without end"
    text = ascii(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def number(value: object, where: str) -> float:
    """Return ``value`` of an annotation as a number.

    Raises:
        UserError: it is none, not finite, or beyond what a float holds; names ``where`` it stands.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(value):
                return float(value)
        except OverflowError:
            pass
    raise UserError(f"{where}: has {shortened(value)}, expected a finite number; repair the file")


def number_in(text: str | None, where: str) -> float:
    """Return the number that ``text`` is; the rest is as for ``number``."""
    try:
        return number(float(text or ""), where)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{where}: has {shortened(text)}, expected a number; repair the file") from error
