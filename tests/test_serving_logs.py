"""Lines of the server's log."""

import logging
from types import SimpleNamespace

import pytest

from pipeline.serving import logs
from pipeline.serving.logs import FIELDS, INCIDENTS, LONGEST, PERIOD_SECONDS, Incidents, JsonFormatter, TextFormatter


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
@pytest.mark.parametrize("message", ["a\x1b[2Jb", "one\nerror: forged", "right\u202eleft", "cr\rover"])
def test_a_line_holds_no_character_that_a_terminal_obeys(formatter: logging.Formatter, message: str) -> None:
    line = formatter.format(logging.LogRecord("serving", logging.INFO, "", 0, message, None, None))
    assert all(character.isprintable() for character in line)


def test_few_of_many_incidents_are_logged_and_the_next_line_says_how_many_were_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 5.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now))
    incidents = Incidents(logging.getLogger(__name__))
    for _ in range(INCIDENTS + 7):
        incidents.log("refused", path="/" + "x" * 1000, status=401)
    assert len(caplog.records) == INCIDENTS
    now += PERIOD_SECONDS
    for _ in range(2):
        incidents.log("refused", path="/", status=401)
    assert incidents.num_seen == INCIDENTS + 9
    found = [getattr(record, FIELDS) for record in caplog.records]
    assert found[0] == {"path": "/" + "x" * (LONGEST - 1), "status": 401}
    assert found[INCIDENTS:] == [{"path": "/", "status": 401, "left_out": 7}, {"path": "/", "status": 401}]
