"""Another host than the head: it waits for a training, takes part in it, and writes nothing of it."""

import json
import logging
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pipeline.core.errors import LostHostError, UserError
from pipeline.core.files import Json
from pipeline.core.printable import printable
from pipeline.hosts.addresses import split_endpoint
from pipeline.hosts.agent_process import AgentProcess
from pipeline.hosts.agreement import Digest, differences, params_of
from pipeline.hosts.channel import VERSION, Answer, Channel, Coming, Dismissal, Ended, Start, Training
from pipeline.hosts.outcome import Outcome

logger = logging.getLogger(__name__)

CALL_SECONDS = 10.0
"""Given to the head to take a call and to say what it trains."""
PAUSE_SECONDS = 1.0
LOOK_SECONDS = 0.2
TOO_MANY = "enough other hosts have joined; this one waits for the next training"


class Place(NamedTuple):
    """What a stage is on this host."""

    params: tuple[str, ...]
    """The keys of the parameters file that it declares."""
    inputs: dict[str, Path]
    """From each argument that takes an input to where that lies here."""
    command: Callable[[Path, Path], list[str]]
    """From a folder for all outputs, and the file of the probe's facts, to its module and arguments."""


class Own(NamedTuple):
    """This host."""

    name: str
    processes: int | None
    """How many it runs; None leaves that to the head."""
    read_params: Callable[[], Json]
    """Returns the content of the parameters file."""
    places: Callable[[str], Place]
    """From a stage's name to what it is here; raises ValueError at another name."""
    digest: Digest
    before: str | None
    """A command of the user, run by a shell before files are compared."""


def call(endpoint: str, *, seconds: float | None) -> socket.socket:
    """Return a connection to the head, as soon as one is listening at ``endpoint``.

    Raises:
        LostHostError: none was within ``seconds``; None waits without end.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(split_endpoint(endpoint), timeout=CALL_SECONDS)
        except OSError as error:
            if deadline is not None and time.monotonic() > deadline:
                raise LostHostError(
                    f"no training began at {endpoint} within {(seconds or 0) / 60:g} minutes "
                    f"({error.strerror or error})"
                ) from error
        time.sleep(PAUSE_SECONDS)


def take_part(connection: socket.socket, own: Own) -> bool:
    """Take part in the training that the head at the other end begins; return False where it says that none follows.

    Raises:
        LostHostError: the training failed, or the head is gone; why.
        SaidError: a process of this host was the first to fail.
        UserError: this host cannot take part; why.
    """
    channel = Channel(connection, silence=CALL_SECONDS)
    try:
        greeting = _greeting(channel)
        if isinstance(greeting, Dismissal):
            channel.send(Ended(fault=None))
            return False
        channel.be_patient(greeting.silence_seconds)
        _join(channel, connection.getsockname()[0], greeting, own)
    finally:
        channel.close()
    return True


def _greeting(channel: Channel) -> Training | Dismissal:
    try:
        greeting = channel.receive()
    except LostHostError as error:
        raise LostHostError(f"what answers at the endpoint {error}; it may be no head of this pipeline") from error
    if isinstance(greeting, Ended) and greeting.fault is not None:
        raise LostHostError(f"the head took no call: {printable(greeting.fault)}")
    if not isinstance(greeting, Training | Dismissal) or greeting.version != VERSION:
        raise UserError(
            "what answers at the endpoint is no head of this version of the pipeline; check out the same commit"
        )
    return greeting


def _join(channel: Channel, address: str, training: Training, own: Own) -> None:
    """Agree with the head on ``training``, run this host's share, and return when it has ended well on all."""
    logger.info("%s: the head calls for %d hosts", training.stage, training.num_hosts)
    events: queue.Queue[object] = queue.Queue()
    threading.Thread(target=_listen, args=[channel, events], daemon=True).start()
    channel.send(Coming(host=own.name))
    fault = _fault(training, own)
    channel.send(Answer(processes=own.processes, fault=fault))
    first = events.get()
    if fault is not None:
        raise UserError(fault)
    if isinstance(first, Start):
        with tempfile.TemporaryDirectory() as folder:
            _run(channel, address, training, first, own, events, Path(folder))
    elif isinstance(first, Ended):
        raise LostHostError(printable(first.fault or TOO_MANY))
    else:
        raise LostHostError(f"the head {_loss(first)}")


def _fault(training: Training, own: Own) -> str | None:
    """Return why this host cannot take part in ``training``, in a line; None where it can."""
    try:
        place = own.places(training.stage)
        if own.before is not None:
            done = subprocess.run(own.before, shell=True, check=False)  # noqa: S602  (the user's own command line)
            if done.returncode:
                return f"the command of --before ended with exit code {done.returncode}: {own.before}"
        params = params_of(own.read_params(), place.params)
        return next(differences(training, params=params, inputs=place.inputs, digest=own.digest), None)
    except (UserError, ValueError) as error:
        return str(error).partition("\n")[0]
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def _listen(channel: Channel, events: "queue.Queue[object]") -> None:
    """Put what the head says into ``events``, until it is gone."""
    try:
        while True:
            events.put(channel.receive())
    except LostHostError as error:
        events.put(error)


def _loss(event: object) -> str:
    return str(event) if isinstance(event, LostHostError) else "says what no head of this pipeline does"


def _run(
    channel: Channel,
    address: str,
    training: Training,
    start: Start,
    own: Own,
    events: "queue.Queue[object]",
    folder: Path,
) -> None:
    """Run this host's processes until all hosts have ended; what they write goes to ``folder``."""
    facts = folder / "environment.json"
    facts.write_text(json.dumps(training.facts), encoding="utf-8")
    words = own.places(training.stage).command(folder / "outputs", facts)
    agent = AgentProcess(start, words, num_hosts=training.num_hosts, own_address=address)
    outcome: Outcome | None = None
    has_ended = False
    try:
        while True:
            if not has_ended and agent.poll():
                has_ended, outcome = True, agent.outcome()
                channel.send(Ended(fault=outcome.fault if outcome else None, weight=outcome.weight if outcome else 0))
            try:
                event = events.get(timeout=LOOK_SECONDS)
            except queue.Empty:
                continue
            if not isinstance(event, Ended):
                raise LostHostError(f"the head {_loss(event)}")
            if event.fault is None:
                return
            if outcome is not None and outcome.was_said:
                raise outcome.error()
            raise LostHostError(printable(event.fault))
    finally:
        agent.stop()
