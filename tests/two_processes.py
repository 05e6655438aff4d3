"""Steps of training that several processes take as one does, and what happens where one of them fails.

Run by torchrun in ``tests.test_distributed``.
"""

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed

from pipeline.core.distributed import (
    all_gather_arrays,
    all_reduce_sum,
    broadcast,
    is_main,
    local_shard,
    process_group,
)
from pipeline.core.errors import GateError
from pipeline.data.batch import Batch
from pipeline.tasks.classification.targets import ClassTargets
from pipeline.training.optim import build_optimizer
from pipeline.training.settings import LearningRate, Optimizer
from pipeline.training.step import TrainingStep
from stages.exit_codes import exit_codes
from tests.toy_objectives import make_teacher, tune, variant

CPU = torch.device("cpu")
LOSSES = {"fm_kt": "dist", "fm_kt_theta": "dkd", "ofm_kt": "dist", "fm_kt on features": "pkd", "metric": "kd"}
CLASS_COUNTS = {"metric": (50, 5, 20, 1)}
"""Of the variants whose classes are balanced; the processes have different ones."""

FROZEN_AT_FIRST = {"fm_kt", "fm_kt_theta", "fm_kt on features"}
"""Variants whose backbone was given and does not learn in the first epoch."""


def take_steps() -> dict[str, dict[str, Tensor]]:
    """Return the weights of each variant after five steps, of two epochs, in float64; each process has its shard."""
    return {name: _weights_after_steps(name, loss) for name, loss in LOSSES.items()}


def _weights_after_steps(name: str, loss: str) -> dict[str, Any]:
    objective = variant(name, loss=loss, teacher=make_teacher().double(), class_counts=CLASS_COUNTS.get(name))
    network = objective.network.double()
    if name in FROZEN_AT_FIRST:
        tune(objective, frozen_epochs=1)
    schedule = LearningRate(warmup_epochs=0)
    rule = build_optimizer(network, Optimizer(weight_decay=0.1), schedule, steps_per_epoch=5, epochs=1)
    step = TrainingStep(objective, *rule, precision="fp32", clip_norm=1.0, average=None, device=CPU)
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        if number in {0, 2}:
            step.begin_epoch(number // 2)
        images = torch.rand(8, 3, 8, 8, generator=generator, dtype=torch.float64)
        shard = local_shard(0, 8)
        torch.manual_seed(1)
        step(Batch(images[shard], ClassTargets((torch.arange(8) // 2)[shard])))
    state: dict[str, Any] = network.state_dict()
    return state


@exit_codes
def main(out: str) -> None:
    """Write the weights after the steps to ``out``; then the second process fails, while the first waits for it."""
    torch.set_num_threads(1)
    with process_group(CPU):
        weights = take_steps()
        rank = distributed.get_rank()
        gathered = all_gather_arrays([{"boxes": np.full((3 * rank, 4), rank)}])
        told = broadcast({"rows": [{"epoch": 1}], "step": torch.ones(2)} if is_main() else None)
        if is_main():
            torch.save({"weights": weights, "shapes": [part[0]["boxes"].shape for part in gathered]}, out)
        elif told is None or told["rows"] != [{"epoch": 1}] or told["step"].tolist() != [1, 1]:
            raise GateError(f"the second process was told {told}")
        all_reduce_sum(torch.ones(1))
        if rank == 1:
            raise GateError("the second process cannot go on")
        all_reduce_sum(torch.ones(1))


if __name__ == "__main__":
    main(sys.argv[1])
