"""Start a training stage in several processes, through torchrun: on this host alone, or on several."""

import os
import sys
from collections.abc import Callable

from pipeline.core.distributed import was_launched
from pipeline.core.processes import num_cores
from pipeline.hosts.addresses import require_free
from pipeline.hosts.agent import run_agent
from pipeline.hosts.channel import Training
from pipeline.hosts.head import lead
from pipeline.training.settings import Hosts


def run_in_processes(module: str, num_processes: int, hosts: Hosts, describe: Callable[[], Training]) -> bool:
    """Run this process's command line, that of ``module``, in ``num_processes`` processes; return whether it was so.

    Nothing is done, and False returned, for one process and in those that torchrun has started.

    Args:
        hosts: where the processes run.
        describe: returns what hosts must agree on; asked where there are several.

    Raises:
        LostHostError, UserError: see ``pipeline.hosts.head.lead``.
        LostProcessError: a process was ended.
        SaidError: a process failed and said why.
    """
    if num_processes == 1 or was_launched():
        return False
    words = [module, *sys.argv[1:]]
    if hosts.num_hosts > 1:
        endpoint = hosts.endpoint or ""
        require_free(endpoint)  # before all files are read, to describe the training
        lead(describe(), words, endpoint=endpoint, wait_minutes=hosts.wait_minutes)
        return True
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_processes)))  # torchrun would take 1
    outcome = run_agent(["--standalone", f"--nproc-per-node={num_processes}", "-m", *words])
    if outcome is None:
        return True
    raise outcome.error()
