"""Lines of the server's log."""

import logging

import pytest

from pipeline.serving.logs import JsonFormatter, TextFormatter


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("message", ["a\x1b[2Jb", "one\nerror: forged", "right\u202eleft", "cr\rover"])
def test_a_line_holds_no_character_that_a_terminal_obeys(formatter: logging.Formatter, message: str) -> None:
    line = formatter.format(logging.LogRecord("serving", logging.INFO, "", 0, message, None, None))
    assert all(character.isprintable() for character in line)
