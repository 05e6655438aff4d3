"""Logging of a command: short lines on standard error, set up by the command line and never at import."""

import contextlib
import logging
import sys
from collections import Counter
from collections.abc import Iterator

from pipeline.core.printable import printable

logger = logging.getLogger(__name__)

NAMED = 20
"""Warnings that are repeated; of more, their number alone."""


class _Printable(logging.Formatter):
    """Lines in which nothing moves a terminal's cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of ``record``."""
        return "\n".join(map(printable, super().format(record).split("\n")))


class _Warnings(logging.Handler):
    """Keep each warning, how often it came, and whether anything was written after the first of them."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.counts: Counter[str] = Counter()
        self.are_last = True

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of ``record``."""
        if record.levelno >= logging.WARNING:
            self.counts[record.getMessage()] += 1
        elif self.counts:
            self.are_last = False


@contextlib.contextmanager
def logged() -> Iterator[None]:
    """Send messages of level INFO and above to standard error; at the end count the warnings and say them again.

    They are said again only where other messages have come in between, among which they would be lost.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    warnings = _Warnings()
    logging.getLogger().addHandler(warnings)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(warnings)
        if warnings.counts and not warnings.are_last:
            _repeat(warnings.counts)


def _repeat(counts: Counter[str]) -> None:
    total = counts.total()
    logger.info("%d %s:", total, "warning" if total == 1 else "warnings")
    for message, count in list(counts.items())[:NAMED]:
        logger.info("  %s%s", message, f" ({count} times)" if count > 1 else "")
    if len(counts) > NAMED:
        logger.info("  and %d more", len(counts) - NAMED)
