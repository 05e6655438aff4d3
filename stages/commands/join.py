"""``fmkt join`` and ``fmkt dismiss``: the hosts that train together with the one on which DVC runs the chain."""

import logging
import signal
import socket
import time
from pathlib import Path

import click

from stages.commands.options import FiniteRange
from stages.common import params_option
from stages.exit_codes import exit_codes, say_error
from stages.output import say

logger = logging.getLogger(__name__)

LONGEST_WAIT = 60 * 60 * 24 * 365
"""Minutes or seconds: the clocks of systems end somewhere."""


def endpoint_option(function: "click.decorators.FC") -> "click.decorators.FC":
    """Add ``--endpoint``."""
    return click.option(
        "--endpoint", metavar="HOST:PORT", help="Of the head.  [default: execution.hosts.endpoint of the parameters]"
    )(function)


@click.command(short_help="Take part in the trainings of another host.")
@params_option
@endpoint_option
@click.option("--processes", type=click.IntRange(1, 1024), help="Run so many here.  [default: an equal share]")
@click.option(
    "--wait",
    type=FiniteRange(0, LONGEST_WAIT, min_open=True),
    metavar="MINUTES",
    help="End where no training begins for so long.",
)
@click.option("--once", is_flag=True, help="End after one training, with its exit code.")
@click.option("--before", metavar="COMMAND", help="Run this in a shell before each training, e.g. to copy its data.")
@exit_codes
def join(
    params_path: Path,
    endpoint: str | None,
    processes: int | None,
    wait: float | None,
    before: str | None,
    *,
    once: bool,
) -> None:
    """Take part in each training that the host at the endpoint begins, in a clone of the same commit.

    Code, parameters, library versions and prepared data must be those of that host, which alone writes outputs. A
    training that fails is told in a line, and the next one waited for, until SIGINT, SIGTERM or fmkt dismiss.
    """
    from pipeline.core.errors import LostHostError, SaidError, UserError
    from pipeline.hosts.joiner import PAUSE_SECONDS, Own, call, take_part
    from pipeline.params.loading import read_sections
    from pipeline.preflight.code import stage_digest
    from stages.hosts import place_of

    signal.signal(signal.SIGTERM, _end)
    place = _endpoint(params_path, endpoint)
    own = Own(
        name=socket.gethostname(),
        processes=processes,
        read_params=lambda: read_sections(params_path),
        places=lambda stage: place_of(stage, params_path),
        digest=stage_digest,
        before=before,
    )
    has_trained = False
    while True:
        logger.info("waiting for a training at %s", place)
        try:
            connection = call(place, seconds=None if wait is None else 60 * wait)
        except LostHostError:
            if has_trained:
                return
            raise
        try:
            if not take_part(connection, own):
                logger.info("told that no more trainings follow")
                return
            has_trained = True
            logger.info("the training has ended well")
        except (LostHostError, SaidError, UserError) as error:
            if once:
                raise
            if not isinstance(error, SaidError):
                say_error(error)
        if once:
            return
        time.sleep(PAUSE_SECONDS)  # what answers may be no head, or one that ends, and does so at once each time


@click.command(short_help="Let the hosts end on which join waits.")
@params_option
@endpoint_option
@click.option(
    "--wait",
    type=FiniteRange(0, LONGEST_WAIT, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="How long they may take to call.",
)
@exit_codes
def dismiss(params_path: Path, endpoint: str | None, wait: float) -> None:
    """Let the hosts end on which fmkt join waits; run here, on the host that trained with them."""
    from pipeline.core.errors import UserError
    from pipeline.hosts.head import dismiss as dismiss_hosts
    from pipeline.hosts.head import refused_calls
    from pipeline.params.loading import load_section
    from pipeline.training.settings import Hosts

    place = _endpoint(params_path, endpoint)
    num_hosts = load_section(params_path, "execution.hosts", Hosts).num_hosts
    if num_hosts == 1:
        raise UserError("execution.hosts.num_hosts: got 1, so no other host waits; give the number that trained")
    told, num_refused = dismiss_hosts(num_hosts, endpoint=place, seconds=wait)
    line = f"{len(told)} of {num_hosts - 1} hosts were told to end"
    if not told:
        line = f"nobody waits: no host called {place} within {wait:g} seconds, where {num_hosts - 1} could"
    elif len(told) < num_hosts - 1:
        line += f"; no other called {place} within {wait:g} seconds: it has ended, or is still busy"
    say(f"{line}; {refused_calls(num_refused)}" if num_refused else line)


def _endpoint(params_path: Path, given: str | None) -> str:
    """Return the endpoint that is ``given`` or stands in the parameters file."""
    from pipeline.core.errors import UserError
    from pipeline.params.loading import load_section
    from pipeline.training.settings import Hosts, check_endpoint

    found = given or load_section(params_path, "execution.hosts", Hosts).endpoint
    if found is None:
        raise UserError("--endpoint: missing, and execution.hosts.endpoint is null; give HOST:PORT of the head")
    try:
        check_endpoint(found)
    except ValueError as error:
        raise UserError(f"--endpoint: {error}") from error
    return found


def _end(number: int, frame: object) -> None:  # noqa: ARG001  (a signal handler's)
    raise SystemExit(128 + number)
