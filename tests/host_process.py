"""A process of a toy training on several hosts, in which the first one fails."""

import os
import sys
from pathlib import Path

import torch
from torch import distributed

from pipeline.core.distributed import all_reduce_sum, process_group
from pipeline.core.errors import GateError
from pipeline.core.processes import end_with_parent
from stages.exit_codes import exit_codes


@exit_codes
def main(folder: str) -> None:
    """Leave a file for each rank in ``folder``; then the first one fails, for which the others wait."""
    with process_group(torch.device("cpu")):
        rank = distributed.get_rank()
        total = all_reduce_sum(torch.tensor([float(rank + 1)]))
        Path(folder, f"rank-{rank}").write_text(f"{os.environ['GROUP_RANK']} {total.item():g}")
        all_reduce_sum(torch.ones(1))
        if rank == 0:
            raise GateError("the loss is not finite")
        all_reduce_sum(torch.ones(1))


if __name__ == "__main__":
    end_with_parent()
    main(sys.argv[1])
