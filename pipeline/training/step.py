"""One step of training: cost, gradient, update."""

import gc
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from models.global_batch_norm import synchronize_batch_norms
from pipeline.core.distributed import all_reduce_sum, world_size
from pipeline.data.batch import Batch
from pipeline.training.objective import Loss, Objective
from pipeline.training.optim import WeightAverage

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TrainingStep:
    """Update the network of an objective, one batch at a time, without waiting for the device.

    Args:
        precision: fp32, or bf16 or fp16 for automatic mixed precision; weights and losses stay in float32.
        clip_norm: the gradient is scaled down to this norm where it is larger; None: left as it is.
        average: takes in the weights after every update; None: nothing does.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        scheduler: LambdaLR,
        *,
        precision: str,
        clip_norm: float | None,
        average: WeightAverage | None,
        device: torch.device,
    ) -> None:
        self.objective = objective
        self.network = objective.network
        self.cost: nn.Module = objective
        self.shared: list[nn.Parameter] = []
        if world_size() > 1:
            synchronize_batch_norms(self.network, all_reduce_sum=all_reduce_sum, world_size=world_size())
            self._share_gradients()
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.autocast = torch.autocast(device.type, DTYPES[precision], enabled=precision != "fp32")
        self.clip_norm = clip_norm
        self.average = average

    def begin_epoch(self, epoch: int) -> None:
        """Make ready for the steps of ``epoch``, counted from 0, in which other parameters may learn than before."""
        self.objective.set_epoch(epoch)
        self.objective.train()
        if world_size() > 1:
            self._share_gradients()

    def _share_gradients(self) -> None:
        """Let processes exchange the gradients of the parameters that learn now, where others did before."""
        learning = [parameter for parameter in self.objective.parameters() if parameter.requires_grad]
        if [*map(id, learning)] == [*map(id, self.shared)]:
            return
        self.cost = self.objective
        gc.collect()  # what exchanged them before is part of a circle, and goes on as long as it is there
        self.cost = DistributedDataParallel(self.objective)
        self.cost.broadcast_buffers = False  # all compute the same; as an argument it warns from PyTorch 2.14 on
        self.shared = learning

    def __call__(self, batch: Batch) -> Loss:
        """Update the network by ``batch`` and return what the batch cost before."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            loss: Loss = self.cost(batch)
        torch.autograd.backward(self.scaler.scale(loss.total))
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.average is not None:
            self.average.update()
        return loss

    @property
    def learning_rate(self) -> float:
        """Return the learning rate of the next update."""
        return float(self.scheduler.get_last_lr()[0])

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, the network's weights included."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average and self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
