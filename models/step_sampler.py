"""How many sampling steps a batch takes in training."""

from collections.abc import Sequence

import torch


class StepSampler:
    """One number of steps, or one drawn from several for each batch.

    Early on the larger ones wait: in epoch e, counted from 0, N is at most the largest power of two not above
    (e + warmup_epochs) / warmup_epochs (the authors' rule with 10 epochs), and at least the smallest choice.
    """

    def __init__(self, choices: Sequence[int], warmup_epochs: int = 0) -> None:
        self.choices = sorted(choices)
        self.warmup_epochs = warmup_epochs
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take note that ``epoch``, counted from 0, begins."""
        self.epoch = epoch

    def allowed(self) -> list[int]:
        """Return the numbers of steps that may be drawn in the present epoch."""
        if not self.warmup_epochs:
            return self.choices
        cap = 2 ** (((self.epoch + self.warmup_epochs) // self.warmup_epochs).bit_length() - 1)
        return [n for n in self.choices if n <= cap] or [min(self.choices)]

    def draw(self) -> int:
        """Return the number of steps of one batch, drawn by PyTorch's generator where there are several."""
        allowed = self.allowed()
        return allowed[int(torch.randint(len(allowed), ()))] if len(allowed) > 1 else allowed[0]

    @property
    def largest(self) -> int:
        """Return the largest number of steps."""
        return max(self.choices)
