"""The head of a training on several hosts: it waits for the others, starts its share, and ends all when one fails."""

import contextlib
import logging
import queue
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from pipeline.core.errors import LostHostError, LostProcessError, SaidError, UserError
from pipeline.core.printable import printable, without_its_middle
from pipeline.hosts.addresses import listen, own_address, split_endpoint
from pipeline.hosts.agent_process import AgentProcess
from pipeline.hosts.channel import VERSION, Answer, Coming, Dismissal, Ended, Start, Training
from pipeline.hosts.switchboard import Peer, Switchboard

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.2
GRACE_SECONDS = 3.0
"""After a failure that explains little: in which a better explanation may come from another host."""
ANSWER_SECONDS = 10.0
"""Given to a host that is let end to say that it does; one that says nothing for so long makes room for others."""
GONE = 3
"""The weight of the loss of a host, which explains all other failures."""


def lead(training: Training, words: Sequence[str], *, endpoint: str, wait_minutes: float) -> None:
    """Train on ``training.num_hosts`` hosts, this one among them; return when the training has ended well.

    Args:
        words: module and arguments that each process here runs.
        endpoint: of this host.

    Raises:
        LostHostError: another host did not come, cannot take part, failed or went; which and why.
        LostProcessError: a process here was ended.
        UserError: the endpoint is none of this host, or processes cannot be shared so.
        SaidError: a process here has said what is wrong.
    """
    address = own_address(endpoint)
    listening = listen(address, split_endpoint(endpoint)[1])
    silence = training.silence_seconds
    switchboard = Switchboard(listening, training, silence=silence, num_hosts=training.num_hosts - 1)
    with contextlib.closing(switchboard):
        peers: list[Peer] = []
        fault: str | None = "the head was ended"
        try:
            seconds = min(60 * wait_minutes, threading.TIMEOUT_MAX)
            _gather(training, switchboard, peers, endpoint=endpoint, seconds=seconds)
            shares = shared_out(training.num_processes, [peer.processes for peer in peers])
            with _agents(training, words, address, peers, shares) as agent:
                _Watch(agent, switchboard, peers).until_all_have_ended()
            fault = None
        except LostHostError as error:
            fault = str(error)
            raise
        except (LostProcessError, SaidError, UserError) as error:
            fault = f"the head: {error}"
            raise
        finally:
            switchboard.tell(Ended(fault=fault))  # those as well who wait for the next training


class Dismissed(NamedTuple):
    """What came of letting hosts end."""

    told: list[str]
    """The addresses of those that were told."""
    num_refused: int
    """Calls that were not taken, as there were too many connections."""


def dismiss(num_hosts: int, *, endpoint: str, seconds: float) -> Dismissed:
    """Tell hosts that wait for trainings that there will be none.

    Args:
        num_hosts: with this one; when so many less one have been told, no more are waited for.
        seconds: so long they may take to call.

    Raises:
        UserError: see ``lead``.
    """
    address = own_address(endpoint)
    listening = listen(address, split_endpoint(endpoint)[1])
    told: dict[Peer, str] = {}
    seconds = min(seconds, threading.TIMEOUT_MAX)
    deadline = time.monotonic() + seconds
    greeting = Dismissal(version=VERSION)
    switchboard = Switchboard(listening, greeting, silence=ANSWER_SECONDS, num_hosts=num_hosts - 1)
    with contextlib.closing(switchboard):
        while len(told) < num_hosts - 1:
            try:
                event = switchboard.events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if isinstance(event.message, Ended):
                told[event.peer] = event.peer.address
    return Dismissed([*told.values()], switchboard.num_refused)


def _gather(training: Training, switchboard: Switchboard, peers: list[Peer], *, endpoint: str, seconds: float) -> None:
    """Wait until all other hosts have joined, and put them into ``peers``.

    Args:
        seconds: so long hosts may be missing; the time that those take to prepare and compare who have come is not
            counted, unless others are missing meanwhile.
    """
    wanted = training.num_hosts - 1
    others = "1 other host" if wanted == 1 else f"{wanted} other hosts"
    logger.info("%s waits for %s; there: fmkt join --endpoint %s", training.stage, others, endpoint)
    left = seconds
    preparing: list[Peer] = []
    while len(peers) < wanted:
        is_missing = len(peers) + len(preparing) < wanted
        began = time.monotonic()
        try:
            peer, message = switchboard.events.get(timeout=max(0.0, left) if is_missing else None)
        except queue.Empty:
            here = [*peers, *preparing]
            came = f" ({', '.join(peer.name for peer in here)})" if here else ""
            refused = f"; {refused_calls(switchboard.num_refused)}" if switchboard.num_refused else ""
            raise LostHostError(
                f"execution.hosts.wait_minutes: {len(here)} of {others}{came} came to {endpoint} within "
                f"{seconds / 60:g} minutes{refused}; run fmkt join --endpoint {endpoint} on each, or give more time"
            ) from None
        left -= time.monotonic() - began if is_missing else 0
        if peer in peers:
            raise LostHostError(f"{peer.name} {_loss(message)}")
        if isinstance(message, Coming) and peer not in preparing:
            peer.introduce(message.host)
            preparing.append(peer)
            logger.info("%s has come, and compares with this host", peer.name)
        elif peer in preparing:
            preparing.remove(peer)
            if not isinstance(message, Answer):
                logger.warning("%s %s; another is waited for", peer.name, _loss(message))
            elif message.fault is not None:
                raise LostHostError(f"{peer.name} cannot take part: {_shown(message.fault)}")
            else:
                peer.processes = message.processes
                peers.append(peer)
                logger.info("%s has joined", peer.name)


def refused_calls(count: int) -> str:
    """Return in words that so many calls were not taken."""
    calls = "1 call was" if count == 1 else f"{count} calls were"
    return f"{calls} refused, as too many connections that say nothing were open at once"


def _shown(fault: str) -> str:
    return without_its_middle(printable(fault))


def _loss(message: object) -> str:
    return str(message) if isinstance(message, LostHostError) else "says what no host of this pipeline does"


def shared_out(num_processes: int, chosen: Sequence[int | None]) -> list[int]:
    """Return how many of ``num_processes`` each host runs, this one first; ``chosen`` are the others', None for any.

    Raises:
        UserError: they cannot be shared so.
    """
    rest = num_processes - sum(count for count in chosen if count is not None)
    share, left = divmod(rest, 1 + sum(count is None for count in chosen))
    if share < 1 or left:
        told = ", ".join("any number" if count is None else str(count) for count in chosen)
        raise UserError(
            f"execution.num_processes: got {num_processes}, which {1 + len(chosen)} hosts cannot share where the "
            f"others run {told}; give a multiple, or say there how many by fmkt join --processes"
        )
    return [share if count is None else count for count in [None, *chosen]]


@contextlib.contextmanager
def _agents(
    training: Training, words: Sequence[str], address: str, peers: Sequence[Peer], shares: Sequence[int]
) -> Iterator[AgentProcess]:
    """Let all hosts start, and yield the agent of this one, which is ended at the end."""
    store = listen(address, 0)
    start = Start(rank=0, processes=shares[0], address=address, port=store.getsockname()[1], run=secrets.token_hex(8))
    agent = AgentProcess(start, words, num_hosts=training.num_hosts, own_address=address, listening=store)
    try:
        for rank, peer in enumerate(peers, start=1):
            peer.channel.send(replace(start, rank=rank, processes=shares[rank]))
        yield agent
    finally:
        agent.stop()


class _Fault(NamedTuple):
    weight: int
    """As of ``Outcome``, or ``GONE``."""
    error: Exception


class _Watch:
    """Watches the agent of this host and the other hosts."""

    def __init__(self, agent: AgentProcess, switchboard: Switchboard, peers: Sequence[Peer]) -> None:
        self._agent = agent
        self._switchboard = switchboard
        self._running = list(peers)
        """Those that have not ended."""
        self._silence = peers[0].channel.silence
        self._faults: list[_Fault] = []
        self._has_ended = False
        """Whether the processes of this host have."""
        self._is_written = False
        """Whether they have ended well."""
        self._since = 0.0
        """When the first process was found to have failed, or those of this host to have ended well."""

    def until_all_have_ended(self) -> None:
        """Return when all have ended well; raise the error that explains most where one did not.

        Once the processes of this host have ended well all is written, and what befalls others is a warning.
        """
        while not self._is_over():
            self._look()
        worst = max(self._faults, key=lambda fault: fault.weight, default=None)
        if worst is None:
            return
        if not self._is_written:
            raise worst.error
        logger.warning("the training was written; then %s", worst.error)

    def _is_over(self) -> bool:
        """Return whether nothing more is to be waited for: all have ended, or enough is known of why one did not."""
        now = time.monotonic()
        if self._is_written:
            return not self._running or now > self._since + self._silence
        if any(fault.weight > 1 for fault in self._faults):
            return True
        return bool(self._faults) and now > self._since + GRACE_SECONDS

    def _look(self) -> None:
        """Take note of what has happened, or wait a moment for it.

        This host comes last: what another says when all is written here already must not count as said before.
        """
        self._hear()
        if not self._has_ended and self._agent.poll():
            outcome = self._agent.outcome()
            self._has_ended, self._is_written = True, outcome is None
            if outcome is None:
                self._since = time.monotonic()
            else:
                self._note(outcome.weight, outcome.error())

    def _hear(self) -> None:
        """Take note of what another host says, or of its going; wait a moment where there is nothing."""
        try:
            peer, message = self._switchboard.events.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            return
        if peer not in self._running:
            return
        self._running.remove(peer)
        if not isinstance(message, Ended):
            self._note(GONE, LostHostError(f"{peer.name} {_loss(message)}"))
        elif message.fault is not None:
            self._note(min(message.weight, 2), LostHostError(f"{peer.name}: {_shown(message.fault)}"))

    def _note(self, weight: int, error: Exception) -> None:
        if not self._faults and not self._is_written:
            self._since = time.monotonic()
        self._faults.append(_Fault(weight, error))
