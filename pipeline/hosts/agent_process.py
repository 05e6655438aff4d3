"""A host's agent as a process of its own, so that whoever started it keeps watch, and can end it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from pipeline.core.processes import num_cores
from pipeline.core.strict_json import parse_json
from pipeline.hosts.addresses import interface_of
from pipeline.hosts.channel import Start
from pipeline.hosts.outcome import Outcome

LEAVING_SECONDS = 2.0
"""Given to an agent whose processes have ended well to end by itself, once those of the other hosts have."""
PATIENCE_SECONDS = 15.0
"""Given to processes that are asked to end; then they are ended."""
LONGEST_RESULT = 2**16


class AgentProcess:
    """The agent of a training on this host, with the processes that it starts; they end with this process.

    To be made in the main thread: the system ends the agent with the thread that started it.

    Args:
        start: which of the hosts this one is, how many processes it runs, and where the store is.
        words: module and arguments that each process runs.
        num_hosts: how many hosts take part.
        own_address: by which this host reaches the others.
        listening: of the head: where the store listens, made already, so that no other program can take the port.
    """

    def __init__(
        self,
        start: Start,
        words: Sequence[str],
        *,
        num_hosts: int,
        own_address: str,
        listening: socket.socket | None = None,
    ) -> None:
        self._result, writing = os.pipe()
        passed = [writing] if listening is None else [writing, listening.fileno()]
        task = {
            "parent": os.getpid(),
            "result": writing,
            "listening": None if listening is None else listening.fileno(),
            "num_hosts": num_hosts,
            "rank": start.rank,
            "processes": start.processes,
            "address": start.address,
            "port": start.port,
            "run": start.run,
            "words": [*words],
        }
        command = [sys.executable, "-m", "pipeline.hosts.agent", json.dumps(task)]
        self._process = subprocess.Popen(  # noqa: S603  (no shell; the words are this project's)
            command, env=environment(start.processes, own_address, os.environ), pass_fds=passed
        )
        os.close(writing)
        os.set_blocking(self._result, False)
        self._said = b""
        if listening is not None:
            listening.close()

    def poll(self) -> bool:
        """Return whether the processes have ended; the agent itself may still wait for those of other hosts."""
        return self._process.poll() is not None or self._line() is not None

    def outcome(self) -> Outcome | None:
        """Return how the processes failed, once they have ended; None where they did not."""
        line = self._line()
        if line is None:
            exit_code = self._process.wait()
            line = self._line()
        if line is not None:
            said = parse_json(line)["outcome"]
            return None if said is None else Outcome(**said)
        if exit_code == 0:
            return None
        return Outcome.of_exit(exit_code) if exit_code < 0 else Outcome.of_lost_peer()

    def _line(self) -> bytes | None:
        """Return what the agent has said of how its processes ended; None as long as that is nothing."""
        with contextlib.suppress(BlockingIOError):
            while b"\n" not in self._said and (found := os.read(self._result, LONGEST_RESULT)):
                self._said += found
        line, end, _ = self._said.partition(b"\n")
        return line if end else None

    def stop(self) -> None:
        """End the agent and its processes, where they have not ended."""
        if self._line() is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(LEAVING_SECONDS)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # its processes end with it
                self._process.wait()
        os.close(self._result)


def environment(processes: int, own_address: str, given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables for an agent of ``processes``, which those that are ``given`` override.

    gloo would ask for the address of this host's name, which is a loopback one on many systems; NCCL takes what stands
    behind = for a whole name, and else for its beginning.
    """
    chosen = {"OMP_NUM_THREADS": str(max(1, num_cores() // processes))}
    interface = interface_of(own_address)
    if interface is not None:
        chosen |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": f"={interface}"}
    return chosen | dict(given)
