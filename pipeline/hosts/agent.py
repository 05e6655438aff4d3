"""torchrun's elastic agent: it starts this host's processes of a training, and ends them all where one fails.

Where several hosts train together the agents meet at a TCPStore by the static rendezvous, whose entries are JSON; the
dynamic one would unpickle what any host writes there. ``python -m pipeline.hosts.agent TASK`` is how ``agent_process``
starts one.
"""

import datetime as dt
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from pipeline.core.files import Json
from pipeline.core.printable import first_line
from pipeline.core.processes import end_with_parent
from pipeline.hosts.outcome import Outcome

RENDEZVOUS_SECONDS = 600
SUCCEEDED = "workers.default.succeeded"
"""The metric by which torchrun tells that all processes of this host have ended well, before it waits for others'."""


def run_agent(words: list[str], *, at_success: Callable[[], None] | None = None) -> Outcome | None:
    """Run torchrun with the arguments ``words`` in this process; return how it failed, None where it did not.

    Args:
        at_success: called when the processes of this host have ended well; torchrun then waits, for up to five minutes,
            until those of the others have.

    Raises:
        KeyboardInterrupt: this process was interrupted.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    if at_success is not None:
        _call_at_success(at_success)
    try:
        run.run(run.parse_args(words))
    except ChildFailedError as error:
        found = [_outcome(failure) for failure in error.failures.values()]
        return max(found, key=lambda outcome: outcome.weight)
    except SignalException as error:  # what torchrun makes of a signal, once it has ended its processes
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        return Outcome.of_exit(-error.sigval)
    return None


def _call_at_success(function: Callable[[], None]) -> None:
    from torch.distributed.elastic.metrics.api import MetricData, MetricHandler, configure

    class Handler(MetricHandler):
        def emit(self, metric_data: MetricData) -> None:
            if metric_data.name == SUCCEEDED:
                function()

    configure(Handler())


def _outcome(failure: Any) -> Outcome:
    """Return what torchrun's ``failure`` of a process says; its own words are in the file that it leaves behind."""
    said: Json = failure.error_file_data
    if said.get("lost_peer"):
        return Outcome.of_lost_peer(str(said["fault"]))
    if "fault" in said:  # also of a process that a library has then aborted, on its way out
        diverged = said.get("diverged") is True
        return Outcome.of_words(str(said["fault"]), failure.exitcode, has_diverged=diverged)
    return Outcome.of_exit(failure.exitcode)


def main() -> None:
    """Take part in the training that the argument describes; write how it failed to where the starter reads."""
    task: Json = json.loads(sys.argv[1])
    end_with_parent(task["parent"])
    logging.disable(logging.ERROR)  # of PyTorch, whose words on processes are followed by those of the starter
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if task["listening"] is not None:  # of the head: the agent finds this store by its port, and makes no other
        store = TCPStore(
            task["address"],
            task["port"],
            is_master=True,
            timeout=dt.timedelta(seconds=RENDEZVOUS_SECONDS),
            wait_for_workers=False,
            multi_tenant=True,
            master_listen_fd=task["listening"],
        )
    words = [f"--nnodes={task['num_hosts']}", f"--node-rank={task['rank']}", f"--nproc-per-node={task['processes']}"]
    words += [f"--master-addr={task['address']}", f"--master-port={task['port']}", f"--rdzv-id={task['run']}"]
    words += [f"--rdzv-conf=timeout={RENDEZVOUS_SECONDS}", "-m", *task["words"]]
    has_succeeded = threading.Event()

    def tell_success() -> None:
        has_succeeded.set()
        _tell(task["result"], None)

    try:
        outcome = run_agent(words, at_success=tell_success)
    except RuntimeError as error:  # of PyTorch's own, between hosts: the store is gone, a host does not answer
        outcome = Outcome.of_lost_peer(f"the hosts of the training lost each other ({first_line(error)})")
    except KeyboardInterrupt:
        outcome = Outcome.of_exit(-signal.SIGINT)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # torchrun's own way of ending is over
    if task["listening"] is not None:
        del store
    if outcome is not None and not has_succeeded.is_set():  # what comes after success concerns other hosts
        _tell(task["result"], outcome)
        sys.exit(1)


def _tell(result: int, outcome: Outcome | None) -> None:
    """Write to ``result`` how this host's processes ended, as a line of JSON."""
    os.write(result, json.dumps({"outcome": outcome and outcome._asdict()}).encode() + b"\n")


if __name__ == "__main__":
    main()
