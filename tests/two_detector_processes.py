"""Steps of training of a detector that several processes take as one does. Run by torchrun."""

import sys
from typing import Any

import torch
from torch import Tensor

from pipeline.core.distributed import is_main, local_shard, process_group
from pipeline.data.batch import Batch
from pipeline.training.optim import build_optimizer
from pipeline.training.settings import LearningRate, Optimizer
from pipeline.training.step import TrainingStep
from tests.toy_detectors import distilled, make_batch

CPU = torch.device("cpu")
METHODS = ("fm_kt", "none")


def take_steps() -> dict[str, dict[str, Tensor]]:
    """Return the weights of each method after three steps in float64; each process has its shard of the batches."""
    return {method: _weights_after_steps(method) for method in METHODS}


def _weights_after_steps(method: str) -> dict[str, Any]:
    objective = distilled(method).objective
    network = objective.network
    rule = build_optimizer(network, Optimizer(), LearningRate(warmup_epochs=0), steps_per_epoch=3, epochs=1)
    step = TrainingStep(objective, *rule, precision="fp32", clip_norm=1.0, average=None, device=CPU)
    step.begin_epoch(0)
    for number in range(3):
        batch, shard = make_batch(8, seed=number), local_shard(0, 8)
        step(Batch(batch.images[shard], batch.targets.select(shard)))
    state: dict[str, Any] = network.state_dict()
    return state


def main(out: str) -> None:
    """Write the weights after the steps to ``out``."""
    torch.set_num_threads(1)
    with process_group(CPU):
        weights = take_steps()
        if is_main():
            torch.save(weights, out)


if __name__ == "__main__":
    main(sys.argv[1])
