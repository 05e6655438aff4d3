"""Logging of a stage: short lines on standard error, set up by the command line and never at import."""

import logging
import sys


def configure_logging() -> None:
    """Send messages of level INFO and above to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
