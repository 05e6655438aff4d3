"""What a command writes to standard error: its messages, and its warnings once more at the end."""

import logging
from collections.abc import Callable, Iterator

import click
import pytest
from click.testing import CliRunner, Result

from pipeline.core.errors import GateError
from pipeline.core.logging_setup import NAMED
from stages.exit_codes import exit_codes

logger = logging.getLogger("a.room")


@pytest.fixture(autouse=True)
def _the_log_is_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers, root.level = handlers, level


def lines_of(work: Callable[[], None]) -> list[str]:
    """Return what a command that does ``work`` writes to standard error."""
    return run(work).stderr.splitlines()


def run(work: Callable[[], None]) -> Result:
    return CliRunner().invoke(click.command()(exit_codes(work)))


def test_warnings_are_counted_and_said_again_at_the_end() -> None:
    def work() -> None:
        logger.warning("%s: left out", "a.png")
        for _ in range(3):
            logger.warning("slow")
        logger.info("done")

    assert lines_of(work) == [
        "a.png: left out", "slow", "slow", "slow", "done",
        "4 warnings:", "  a.png: left out", "  slow (3 times)",
    ]  # fmt: skip


def test_what_stands_last_anyway_is_not_said_twice() -> None:
    def work() -> None:
        logger.info("done")
        logger.warning("slow")

    assert lines_of(work) == ["done", "slow"]


def test_a_failure_stands_below_the_warnings_that_may_explain_it() -> None:
    def work() -> None:
        logger.warning("training diverged")
        logger.info("exporting")
        raise GateError("outputs differ")

    result = run(work)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-3:] == ["1 warning:", "  training diverged", "error: outputs differ"]


def test_a_flood_of_warnings_is_cut() -> None:
    def work() -> None:
        for number in range(NAMED + 5):
            logger.warning("file %d", number)
        logger.info("done")

    lines = lines_of(work)
    assert lines[-1] == "  and 5 more"
    assert f"{NAMED + 5} warnings:" in lines
    assert len(lines) == 2 * NAMED + 8
