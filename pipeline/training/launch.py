"""Start a training stage in several processes, through torchrun."""

import os
import sys

from pipeline.core.distributed import was_launched
from pipeline.core.processes import num_cores


def run_in_processes(module: str, num_processes: int) -> bool:
    """Run this process's command line, that of ``module``, in ``num_processes`` processes; return whether it was so.

    Nothing is done, and False returned, for one process and in those that torchrun has started.

    Raises:
        SystemExit: a process failed; with its exit code.
    """
    if num_processes == 1 or was_launched():
        return False
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_processes)))  # torchrun would take 1
    words = ["--standalone", f"--nproc-per-node={num_processes}", "-m", module, *sys.argv[1:]]
    try:
        run.run(run.parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code in {1, 2} else 1)
    return True
