"""The figures of each step of an epoch, kept on the device until they are read."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pipeline.core.distributed import all_reduce_sum, world_size
from pipeline.core.errors import DivergedError
from pipeline.training.objective import Loss

Figures = dict[str, float]


class EpochMetrics:
    """Loss, its parts and the task's scores of each step; taking them in never waits for the device.

    Args:
        key: of the settings of the training, for messages.
    """

    def __init__(self, num_steps: int, *, key: str) -> None:
        self.num_steps = num_steps
        self.key = key
        self.count = 0
        self.names: list[str] = []
        self._log = torch.empty(0)
        self._learning_rates: list[float] = []
        self._checked = 0

    def add(self, loss: Loss, scores: Mapping[str, Tensor], learning_rate: float) -> None:
        """Take in the figures of one step, which was taken at ``learning_rate``; ``scores`` are the task's, scalars."""
        figures = {"loss": loss.total, **loss.parts, **scores}
        if not self.names:
            self.names = list(figures)
            self._log = torch.empty(self.num_steps, len(figures), device=loss.total.device)
        self._log[self.count] = torch.stack([value.detach().float() for value in figures.values()])
        self._learning_rates.append(learning_rate)
        self.count += 1

    def latest(self) -> Figures:
        """Return the mean figures of the steps since the last call, of this process alone.

        Raises:
            DivergedError: one of their losses is not finite; names the step, its figures and its learning rate.
        """
        rows: list[list[float]] = self._log[self._checked : self.count].tolist()
        for step, row in enumerate(rows, start=self._checked + 1):
            if not math.isfinite(row[0]):
                raise DivergedError(self._diverged(step, row))
        self._checked = self.count
        return {name: sum(column) / len(rows) for name, column in zip(self.names, zip(*rows, strict=True), strict=True)}

    def means(self) -> Figures:
        """Return the mean figures of all steps and all processes."""
        means = all_reduce_sum(self._log[: self.count].double().mean(dim=0)) / world_size()
        return dict(zip(self.names, means.tolist(), strict=True))

    def _diverged(self, step: int, row: list[float]) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in zip(self.names, row, strict=True))
        return (
            f"training diverged: the loss is not finite at step {step} of {self.num_steps} of an epoch ({figures}, "
            f"learning rate {self._learning_rates[step - 1]:.4g}); lower {self.key}.optimizer.learning_rate or the "
            f"weight of the loss that grew, or set {self.key}.clip_norm, e.g. to 1.0"
        )
